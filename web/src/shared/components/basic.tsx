/** Buttons, notices, badges, placeholders and icons. */
import type { ComponentChildren, JSX } from "preact";
import { ApiError, NoResponse } from "../api/client";
import { say } from "../sentences";

const ICONS = {
  alert: "M12 8v5m0 3h.01M10.3 4 2.6 17.5A2 2 0 0 0 4.3 20.5h15.4a2 2 0 0 0 1.7-3L13.7 4a2 2 0 0 0-3.4 0z",
  bag: "M5 8h14l-1 12H6L5 8zm4 0V6a3 3 0 0 1 6 0v2",
  box: "m12 3 8 4.5v9L12 21l-8-4.5v-9L12 3zm0 9 8-4.5M12 12v9m0-9L4 7.5",
  check: "m5 12.5 4.5 4.5L19 7.5",
  chevron: "m9 5 7 7-7 7",
  close: "m6 6 12 12M18 6 6 18",
  filter: "M4 6h16M7 12h10m-7 6h4",
  minus: "M5 12h14",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  plus: "M12 5v14M5 12h14",
  receipt: "M6 3h12v18l-3-2-3 2-3-2-3 2V3zm3 5h6m-6 4h6",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zm5 12 4.5 4.5",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zm0-6v2m0 16v2M4.2 4.2l1.4 1.4m12.8 12.8 1.4 1.4M2 12h2m16 0h2M4.2 19.8l1.4-1.4M18.4 5.6l1.4-1.4",
  trash: "M5 7h14M10 7V4h4v3m-7 0 1 13h8l1-13",
  truck: "M3 6h11v10H3V6zm11 4h4l3 3v3h-7v-6zM7 19a2 2 0 1 0 0-4 2 2 0 0 0 0 4zm10 0a2 2 0 1 0 0-4 2 2 0 0 0 0 4z",
  user: "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM4.5 20a7.5 7.5 0 0 1 15 0",
} as const;

export function Icon({ name }: { name: keyof typeof ICONS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={ICONS[name]} />
    </svg>
  );
}

type ButtonProps = Omit<JSX.IntrinsicElements["button"], "icon"> & {
  kind?: "primary" | "secondary" | "quiet" | "danger";
  busy?: boolean;
  icon?: keyof typeof ICONS;
};

/** A busy button keeps its place and its focus, and does nothing. */
export function Button({ kind = "secondary", busy, icon, children, ...rest }: ButtonProps) {
  const { onClick, class: extra, ...others } = rest;
  return (
    <button
      type="button"
      {...others}
      class={`button ${kind} ${typeof extra === "string" ? extra : ""}`}
      aria-busy={busy}
      aria-disabled={busy}
      onClick={busy ? (event) => event.preventDefault() : onClick}
    >
      {icon && <Icon name={icon} />}
      {busy ? <span>{say("busy")}</span> : children}
    </button>
  );
}

/** A button of an icon only; `label` is what it does. */
export function IconButton({
  icon,
  label,
  ...rest
}: Omit<JSX.IntrinsicElements["button"], "icon" | "label"> & {
  icon: keyof typeof ICONS;
  label: string;
}) {
  return (
    <button type="button" {...rest} class="icon-button" aria-label={label} title={label}>
      <Icon name={icon} />
    </button>
  );
}

export type Tone = "neutral" | "good" | "warn" | "bad" | "info";

export function Badge({ tone = "neutral", children }: { tone?: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

export function Notice({
  tone = "info",
  title,
  children,
}: {
  tone?: Tone;
  title?: ComponentChildren;
  children?: ComponentChildren;
}) {
  return (
    <div class={`notice ${tone}`} role={tone === "bad" ? "alert" : "status"}>
      {title && <strong>{title}</strong>}
      {children && <div>{children}</div>}
    </div>
  );
}

/** The sentence for an error, in the language of the page. */
export function sentenceOf(error: unknown): string {
  if (error instanceof NoResponse) return say("noResponse");
  if (!(error instanceof ApiError)) return say("unexpected");
  if (error.status === 429) return say("rateLimited", { seconds: error.retryAfterSeconds ?? 1 });
  if ([502, 503, 504].includes(error.status)) return say("unavailable");
  if (error.status >= 500) return say("unexpected");
  return error.message;
}

export function ErrorNotice({ error, retry }: { error: unknown; retry?: () => void }) {
  const trace = error instanceof ApiError && error.status >= 500 ? error.traceId : null;
  return (
    <Notice tone="bad" title={sentenceOf(error)}>
      {trace && <p class="small">{say("trace", { id: trace })}</p>}
      {retry && <Button onClick={retry}>{say("retry")}</Button>}
    </Notice>
  );
}

/** A grey shape in place of what is loading. */
export function Skeleton({ lines = 1, class: extra = "" }: { lines?: number; class?: string }) {
  return (
    <div class={`skeleton ${extra}`} aria-hidden="true">
      {Array.from({ length: lines }, (_, index) => (
        <span key={index} />
      ))}
    </div>
  );
}

export function Loading() {
  return (
    <div role="status">
      <span class="visually-hidden">{say("loading")}</span>
      <Skeleton lines={4} />
    </div>
  );
}

/** What is shown where there is nothing; `level` 1 where it is all that the page has. */
export function Empty({
  icon = "box",
  level = 2,
  title,
  children,
}: {
  icon?: keyof typeof ICONS;
  level?: 1 | 2;
  title: ComponentChildren;
  children?: ComponentChildren;
}) {
  const Heading = `h${level}` as const;
  return (
    <div class="empty">
      <Icon name={icon} />
      <Heading>{title}</Heading>
      {children}
    </div>
  );
}
