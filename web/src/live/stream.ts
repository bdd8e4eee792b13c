/** The server-sent summaries of the local platform, and what the page keeps of them. */
import { signal } from "@preact/signals";

export type State = "asleep" | "waking" | "awake" | "working";

export interface FunctionState {
  name: string;
  summary: string;
  state: State;
  processes: number;
  starting: number;
  processesMax: number;
  concurrency: number;
  inFlight: number;
  queued: number;
  messages: number;
  coldStarts: number;
  lastStartSeconds: number | null;
}

export interface Activity {
  kind: string;
  function: string;
  subject: string;
  code: number;
  seconds: number;
  detail: string;
}

export interface Flow extends Omit<Activity, "seconds" | "detail"> {
  count: number;
}

export interface Invariant {
  id: string;
  what: string;
  state: "holds" | "broken" | "skipped";
  reason: string;
  rows: string[];
}

export interface Summary {
  at: string;
  functions: FunctionState[];
  pending: number;
  faults: Record<string, number>;
  invariants: Invariant[];
  invariantsError: string;
  flows: Flow[];
  activities: Activity[];
  leftOut: number;
}

export interface Shown extends Activity {
  id: number;
  at: string;
}

const ACTIVITIES_MAX = 80;
const INTERVALS_MAX = 60;

export const summary = signal<Summary | null>(null);
export const isConnected = signal(false);
export const isPaused = signal(false);
/** The newest activities, newest first. */
export const activities = signal<readonly Shown[]>([]);
/** Messages of each function in the last intervals, oldest first. */
export const history = signal<ReadonlyMap<string, readonly number[]>>(new Map());

let next = 0;
const totals = new Map<string, number>();

/** Keeps a summary; the lists have a bounded size. */
export function take(received: Summary): void {
  summary.value = received;
  history.value = new Map(
    received.functions.map(({ name, messages }) => {
      const before = totals.get(name) ?? messages;
      totals.set(name, messages);
      const known = history.value.get(name) ?? [];
      return [name, [...known, Math.max(0, messages - before)].slice(-INTERVALS_MAX)];
    }),
  );
  if (isPaused.value) return;
  const shown = received.activities.map((each) => ({ ...each, id: next++, at: received.at }));
  activities.value = [...shown.reverse(), ...activities.value].slice(0, ACTIVITIES_MAX);
}

/** Connects; the browser connects again by itself when the connection ends. */
export function connect(): void {
  const source = new EventSource("/stream");
  source.onopen = () => (isConnected.value = true);
  source.onerror = () => (isConnected.value = false);
  source.onmessage = (message: MessageEvent<string>) => {
    isConnected.value = true;
    take(JSON.parse(message.data) as Summary);
  };
}

/** JSON of the live view's own port; throws the message of a problem document. */
export async function read<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await fetch(path, signal ? { signal } : {});
  const document = (await response.json()) as T & { message?: string };
  if (!response.ok) throw new Error(document.message ?? response.statusText);
  return document;
}

export async function setFault(name: string, probability: number): Promise<void> {
  const response = await fetch("/faults", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ [name]: probability }),
  });
  if (!response.ok) throw new Error(((await response.json()) as { message: string }).message);
}
