/** The parts of the live view that are read from the database, the mail catcher and the logs. */
import { Badge, Button, Notice, type Tone } from "@shared/components/basic";
import { TextField } from "@shared/components/form";
import { dateTime, money, number } from "@shared/i18n";
import { type Loaded, useLoaded } from "@shared/load";
import { go, href, place } from "@shared/router";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { milliseconds } from "./panels";
import { say } from "./sentences";
import { read } from "./stream";

const READ_MS = 2000;

/** Reads now and every two seconds, while the page is visible. */
function useReading<T>(path: string | null): Loaded<T | null> {
  const [turn, next] = useState(0);
  const loaded = useLoaded<T | null>(
    (signal) => (path === null ? Promise.resolve(null) : read<T>(path, signal)),
    [path, turn],
  );
  const isLoading = useRef(loaded.isLoading);
  isLoading.current = loaded.isLoading;
  useEffect(() => {
    // not while it loads: the next reading would end this one
    const timer = setInterval(() => {
      if (!document.hidden && !isLoading.current) next((before) => before + 1);
    }, READ_MS);
    return () => clearInterval(timer);
  }, []);
  return loaded;
}

function Panel({
  title,
  of,
  children,
}: {
  title: string;
  of: Pick<Loaded<unknown>, "error">;
  children: ComponentChildren;
}) {
  return (
    <section class="stack tight">
      <h2>{title}</h2>
      {of.error instanceof Error && <Notice tone="warn" title={of.error.message} />}
      {children}
    </section>
  );
}

interface Order {
  order_id: string;
  status: string;
  total_minor: number;
  currency: string;
  created_at: string;
}

const STATUS: Record<string, Tone> = { PAID: "good", PENDING: "info", CANCELLED: "neutral" };

export function Orders() {
  const orders = useReading<Order[]>("/orders");
  const chosen = place.value.query.get("order");
  return (
    <Panel title={say("orders")} of={orders}>
      <ul class="card list">
        {orders.data?.length === 0 && <li class="muted">{say("noOrders")}</li>}
        {orders.data?.map((order) => (
          <li key={order.order_id}>
            <a
              href={href("/", { order: order.order_id })}
              aria-current={chosen === order.order_id ? "true" : undefined}
            >
              <span class="mono">…{order.order_id.slice(-8)}</span>
              <Badge tone={STATUS[order.status] ?? "warn"}>{order.status}</Badge>
              <span class="number">{money(order.total_minor, order.currency)}</span>
              <time class="muted small">{dateTime(order.created_at)}</time>
            </a>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

interface Path {
  orderId: string;
  status: string;
  traceIds: string[];
  entries: { at: string; subject: string; text: string }[];
  due: { kind: string; at: string }[];
}

export function OrderPath() {
  const id = place.value.query.get("order");
  const path = useReading<Path>(id === null ? null : `/orders/${encodeURIComponent(id)}`);
  const shown = path.data;
  return (
    <Panel title={say("path")} of={path}>
      {!shown && <p class="card muted">{say("chooseOrder")}</p>}
      {shown && (
        <div class="card stack tight">
          <div class="row between">
            <span class="mono small">{shown.orderId}</span>
            <Badge tone={STATUS[shown.status] ?? "warn"}>{shown.status}</Badge>
          </div>
          <Timeline entries={shown.entries} />
          {shown.due.map((job) => (
            <p key={job.kind} class="small">
              <Badge tone="info">{say("next")}</Badge> {job.kind} · {dateTime(job.at)}
            </p>
          ))}
          <div class="row">
            {shown.traceIds.map((trace) => (
              <Button key={trace} kind="quiet" onClick={() => go(href("/", { order: shown.orderId, trace }))}>
                {say("logs")} {trace.slice(0, 8)}…
              </Button>
            ))}
          </div>
        </div>
      )}
    </Panel>
  );
}

/** Entries with the time since the first one; the bar is the share of the whole time. */
function Timeline({ entries }: { entries: Path["entries"] }) {
  const first = Date.parse(entries[0]?.at ?? "");
  const whole = Math.max(1, Date.parse(entries.at(-1)?.at ?? "") - first);
  return (
    <ol class="timeline">
      {entries.map((entry, index) => {
        const passed = Date.parse(entry.at) - first;
        return (
          <li key={index} class={entry.subject.replace(" ", "-")}>
            <span class="number muted small">+{milliseconds(passed / 1000)}</span>
            <span class="track" aria-hidden="true">
              <i style={{ insetInlineStart: `${(passed / whole) * 100}%` }} />
            </span>
            <span class="text">{entry.text}</span>
          </li>
        );
      })}
    </ol>
  );
}

interface Due {
  kind: string;
  jobs: number;
  due: number;
  nextAt: string;
}

export function DueJobs() {
  const due = useReading<Due[]>("/due");
  return (
    <Panel title={say("due")} of={due}>
      <div class="card table">
        {due.data?.length === 0 && <p class="muted">{say("noDue")}</p>}
        {due.data && due.data.length > 0 && (
          <table>
            <thead><tr><th>{say("due")}</th><th>{say("jobs")}</th><th>{say("next")}</th></tr></thead>
            <tbody>
              {due.data.map((each) => (
                <tr key={each.kind}>
                  <td class="mono">{each.kind}</td>
                  <td class="number">{number(each.jobs)}</td>
                  <td>{each.due > 0 ? <Badge tone="warn">{say("now")}</Badge> : dateTime(each.nextAt)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </div>
    </Panel>
  );
}

interface Mail {
  id: number;
  to: string;
  subject: string;
  receivedAt: string;
  page: string;
}

export function Mails() {
  const mails = useReading<Mail[]>("/mails");
  return (
    <Panel title={say("mails")} of={mails}>
      <ul class="card list">
        {mails.data?.length === 0 && <li class="muted">{say("noMails")}</li>}
        {mails.data?.map((mail) => (
          <li key={mail.id}>
            <a href={mail.page} target="_blank" rel="noreferrer">
              <span>{mail.subject}</span>
              <span class="muted small">{mail.to}</span>
            </a>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

type LogLine = Record<string, unknown> & { at: string; log: string; message: string };

export function Logs() {
  const { query } = place.value;
  const trace = query.get("trace");
  const order = query.get("order") ?? undefined;
  const lines = useReading<LogLine[]>(trace ? `/logs?trace=${encodeURIComponent(trace)}` : null);
  return (
    <Panel title={say("logs")} of={lines}>
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          const given = String(new FormData(event.currentTarget).get("trace")).trim();
          go(href("/", { order, trace: given }));
        }}
      >
        <TextField name="trace" label={say("trace")} value={trace ?? ""} maxLength={32} />
        <Button type="submit">{say("find")}</Button>
      </form>
      {trace && (
        <ol class="card logs" tabIndex={0} aria-label={say("logs")}>
          {lines.data?.length === 0 && <li class="muted">{say("noLogs")}</li>}
          {lines.data?.map((line, index) => <LogEntry key={index} line={line} />)}
        </ol>
      )}
    </Panel>
  );
}

function LogEntry({ line }: { line: LogLine }) {
  const { at, log, message, trace: _, ...fields } = line;
  return (
    <li>
      <time class="mono muted">{at.slice(11, 23)}</time>
      <span class="mono">{log}</span>
      <span class="mono">
        {message} {Object.entries(fields).map(([name, value]) => `${name}=${String(value)}`).join(" ")}
      </span>
    </li>
  );
}
