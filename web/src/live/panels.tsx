/** The parts of the live view that come from the stream. */
import { Badge, Button, Notice, type Tone } from "@shared/components/basic";
import { number } from "@shared/i18n";
import { useState } from "preact/hooks";
import { say } from "./sentences";
import {
  activities,
  type FunctionState,
  history,
  isPaused,
  setFault,
  type Shown,
  type State,
  summary,
} from "./stream";

const TONES: Record<State, Tone> = {
  asleep: "neutral",
  waking: "warn",
  awake: "info",
  working: "good",
};

export function Functions() {
  const functions = summary.value?.functions ?? [];
  return (
    <section class="stack tight">
      <h2>{say("functions")}</h2>
      <ul class="tiles">
        {functions.map((each) => <Tile key={each.name} of={each} />)}
      </ul>
    </section>
  );
}

function Tile({ of }: { of: FunctionState }) {
  const slots = of.processesMax * of.concurrency;
  return (
    <li class={`tile ${of.state}`} title={of.summary}>
      <div class="row between">
        <strong class="mono">{of.name}</strong>
        <Badge tone={TONES[of.state]}>{say(of.state)}</Badge>
      </div>
      <Bars values={history.value.get(of.name) ?? []} />
      <dl class="counts small">
        <Count label={say("processes")} value={`${of.processes}/${of.processesMax}`} />
        <Count label={say("inFlight")} value={`${of.inFlight}/${slots}`} />
        <Count label={say("queued")} value={number(of.queued)} />
        <Count label={say("coldStarts")} value={number(of.coldStarts)} />
        <Count
          label={say("lastStart")}
          value={of.lastStartSeconds === null ? "–" : milliseconds(of.lastStartSeconds)}
        />
      </dl>
    </li>
  );
}

function Count({ label, value }: { label: string; value: string }) {
  return (
    <div>
      <dt class="muted">{label}</dt>
      <dd class="number">{value}</dd>
    </div>
  );
}

/** Messages in each of the last intervals. */
function Bars({ values }: { values: readonly number[] }) {
  const most = Math.max(1, ...values);
  return (
    <svg class="bars" viewBox="0 0 60 16" preserveAspectRatio="none" aria-hidden="true">
      {values.map((value, index) => {
        const height = value === 0 ? 0.5 : Math.max(2, (value / most) * 16);
        const x = index + 60 - values.length;
        return <rect key={index} x={x} y={16 - height} width={0.8} height={height} />;
      })}
    </svg>
  );
}

export function milliseconds(seconds: number): string {
  return seconds < 10 ? `${number(Math.round(seconds * 1000))} ms` : `${number(Math.round(seconds))} s`;
}

const KINDS: Record<string, Tone> = {
  error: "bad",
  dead_letter: "bad",
  kill: "bad",
  loss: "bad",
  retry: "warn",
  duplicate: "warn",
  reload: "info",
  start: "info",
  event: "good",
};

export function Flow() {
  const left = summary.value?.leftOut ?? 0;
  return (
    <section class="stack tight">
      <div class="row between">
        <h2>{say("flow")}</h2>
        <div class="row">
          <span class="small muted">
            {say("pending", { count: number(summary.value?.pending ?? 0) })}
          </span>
          <Button kind="quiet" onClick={() => (isPaused.value = !isPaused.value)}>
            {say(isPaused.value ? "resume" : "pause")}
          </Button>
        </div>
      </div>
      {left > 0 && <p class="small muted">{say("leftOut", { count: number(left) })}</p>}
      <ol class="card flow" tabIndex={0} aria-label={say("flow")}>
        {activities.value.length === 0 && <li class="muted">{say("none")}</li>}
        {activities.value.map((each) => <Line key={each.id} of={each} />)}
      </ol>
    </section>
  );
}

function Line({ of }: { of: Shown }) {
  const isDelivery = ["delivery", "retry", "dead_letter", "duplicate"].includes(of.kind);
  const tone = of.code >= 500 ? "bad" : of.code >= 400 ? "warn" : (KINDS[of.kind] ?? "neutral");
  return (
    <li>
      <time class="mono muted">{of.at.slice(11, 21)}</time>
      <Badge tone={tone}>{of.kind.replace("_", " ")}</Badge>
      <span class="mono what">
        {isDelivery ? `${of.subject} → ${of.function}` : [of.function, of.subject].filter(Boolean).join(" ")}
        {of.kind === "request" && ` ${of.detail}`}
        {(of.kind === "error" || of.kind === "reload") && ` ${of.detail}`}
      </span>
      <span class="number muted">
        {of.code > 0 && `${of.code} `}
        {of.seconds > 0 && milliseconds(of.seconds)}
      </span>
    </li>
  );
}

export function Invariants() {
  const { invariants = [], invariantsError = "" } = summary.value ?? {};
  const broken = invariants.filter((each) => each.state === "broken");
  const holds = invariants.filter((each) => each.state === "holds");
  return (
    <section class="stack tight">
      <div class="row between">
        <h2>{say("invariants")}</h2>
        {invariants.length > 0 && (
          <div class="row">
            <Badge tone="good">{say("holds", { count: holds.length })}</Badge>
            {broken.length > 0 && <Badge tone="bad">{say("broken", { count: broken.length })}</Badge>}
          </div>
        )}
      </div>
      {invariantsError && <Notice tone="warn" title={invariantsError} />}
      {broken.map((each) => (
        <Notice key={each.id} tone="bad" title={`${each.id}: ${each.what}`}>
          <p class="mono small">{each.rows.join("; ")}</p>
        </Notice>
      ))}
      <ul class="card marks">
        {invariants.length === 0 && <li class="muted">{say("checking")}</li>}
        {invariants.map((each) => (
          <li key={each.id} class={each.state} title={`${each.what} ${each.reason}`}>{each.id}</li>
        ))}
      </ul>
    </section>
  );
}

const FAULTS = ["duplicate", "reorder", "lose", "kill", "slowProvider"] as const;

export function Switches() {
  const [error, change] = useState("");
  const faults = summary.value?.faults ?? {};
  const set = (name: string, value: number) =>
    setFault(name, value).then(() => change(""), (reason: Error) => change(reason.message));
  return (
    <section class="stack tight">
      <h2>{say("switches")}</h2>
      {error && <Notice tone="bad" title={error} />}
      <div class="card switches">
        {FAULTS.map((name) => (
          <label key={name}>
            <span>{say(name)}</span>
            <select
              value={String(faults[name] ?? 0)}
              onInput={(event) => void set(name, Number(event.currentTarget.value))}
            >
              {options(faults[name] ?? 0).map((value) => (
                <option key={value} value={String(value)}>
                  {value === 0 ? say("off") : `${Math.round(value * 100)} %`}
                </option>
              ))}
            </select>
          </label>
        ))}
      </div>
    </section>
  );
}

function options(present: number): number[] {
  return [...new Set([0, 0.05, 0.1, 0.3, 0.5, 1, present])].sort((a, b) => a - b);
}
