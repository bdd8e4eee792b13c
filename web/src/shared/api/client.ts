/**
 * Requests to the shop's API, typed by `contract.ts`.
 *
 * A safe request, or one with an Idempotency-Key, is repeated after a lost connection, 429, 502,
 * 503 and 504: it has one effect however often it arrives.  Every other request is sent once.
 */
import type { Endpoints } from "./contract";

export type Endpoint = keyof Endpoints;
export type ResponseOf<E extends Endpoint> = Endpoints[E]["response"];
export type BodyOf<E extends Endpoint> = Endpoints[E]["body"];
export type QueryOf<E extends Endpoint> = Endpoints[E]["query"];

/** Members of `Endpoints[E]` that a caller gives; those that are undefined are left out. */
type Given<E extends Endpoint> = (Endpoints[E]["path"] extends undefined
  ? unknown
  : { path: { [K in keyof Endpoints[E]["path"]]: string | number } }) &
  (undefined extends Endpoints[E]["query"] ? unknown : { query?: Endpoints[E]["query"] }) &
  (undefined extends Endpoints[E]["body"] ? unknown : { body: Endpoints[E]["body"] });

export interface Options {
  /** The key of a submission; see `submissions.ts`. */
  idempotencyKey?: string;
  /** `If-Match`: the entity tag of the state that was read. */
  ifMatch?: string;
  /** Seconds to wait for a final response (`Prefer: wait`). */
  waitSeconds?: number;
  signal?: AbortSignal;
  /** False for a request without the access token. */
  authenticated?: boolean;
  headers?: Record<string, string>;
}

export interface Reply<T> {
  data: T;
  status: number;
  headers: Headers;
  /** The `cursor` of the next page, from the Link header. */
  next: string | null;
}

/** A response that is an error; `code` is the member `error` of its problem document. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly problem: Readonly<Record<string, unknown>> = {},
    readonly traceId: string | null = null,
    readonly retryAfterSeconds: number | null = null,
  ) {
    super(message);
  }

  /** The message of each field of the body that was wrong, by its name. */
  get fields(): Record<string, string> {
    const errors = Array.isArray(this.problem.errors) ? this.problem.errors : [];
    return Object.fromEntries(
      errors.map((each: { field?: string; path?: string; message: string }) => [
        (each.field ?? each.path ?? "").replace(/^.*[./]/, ""),
        each.message,
      ]),
    );
  }
}

/** There was no response: the network is down, or the time is over. */
export class NoResponse extends Error {}

/** Where the client gets its tokens, and whom it informs when they are no longer valid. */
export interface Authority {
  accessToken(): string | null;
  /** A new access token, or null when the session has ended. */
  renew(): Promise<string | null>;
}

const ATTEMPTS_MAX = 4;
const TIMEOUT_SECONDS = 15;
// the others are answers of the shop, or of a bug that the next attempt would meet again
const REPEATED = new Set([429, 502, 503, 504]);
const WAITS_MS = [300, 1000, 2500];

let authority: Authority = { accessToken: () => null, renew: () => Promise.resolve(null) };
let language = "ko";

export function configure(settings: { authority?: Authority; language?: string }): void {
  authority = settings.authority ?? authority;
  language = settings.language ?? language;
}

/** Sends a request; throws `ApiError` for an error and `NoResponse` when there is none. */
export async function send<E extends Endpoint>(
  endpoint: E,
  given: Given<E> & Options,
): Promise<Reply<ResponseOf<E>>> {
  const [method, template] = endpoint.split(" ") as [string, string];
  const url = urlOf(template, given as Loose);
  const init = requestOf(method, given as Loose & Options);
  if (template.endsWith(".csv")) init.headers.set("accept", "text/csv, application/problem+json");
  let token = given.authenticated === false ? null : authority.accessToken();
  let renewed = false;
  for (let attempt = 1; ; attempt++) {
    const last = attempt === ATTEMPTS_MAX || !isRepeatable(method, given);
    try {
      const response = await fetchOnce(url, init, token, given);
      if (response.status === 401 && given.authenticated !== false && !renewed) {
        renewed = true;
        token = await authority.renew();
        if (token !== null) continue;
      }
      if (response.ok || response.status === 304) return await replyOf<ResponseOf<E>>(response);
      const error = await errorOf(response);
      if (last || !REPEATED.has(response.status)) throw error;
      if ((error.retryAfterSeconds ?? 0) > 5) throw error;
      await pause(Math.max((error.retryAfterSeconds ?? 0) * 1000, WAITS_MS[attempt - 1]!));
    } catch (error) {
      if (!(error instanceof NoResponse) || last) throw error;
      await pause(WAITS_MS[attempt - 1]!);
    }
  }
}

/** The data of a response. */
export async function call<E extends Endpoint>(
  endpoint: E,
  given: Given<E> & Options,
): Promise<ResponseOf<E>> {
  return (await send(endpoint, given)).data;
}

interface Loose {
  path?: Record<string, string | number>;
  query?: Record<string, unknown>;
  body?: unknown;
}

function urlOf(template: string, given: Loose): string {
  const path = template.replace(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(String(given.path?.[name])),
  );
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(given.query ?? {})) {
    if (value !== undefined && value !== null && value !== "") query.set(name, String(value));
  }
  return query.size ? `${path}?${query}` : path;
}

function requestOf(method: string, given: Loose & Options): RequestInit & { headers: Headers } {
  const headers = new Headers({ accept: "application/json", "accept-language": language });
  for (const [name, value] of Object.entries(given.headers ?? {})) headers.set(name, value);
  if (given.idempotencyKey) headers.set("idempotency-key", given.idempotencyKey);
  if (given.ifMatch) headers.set("if-match", given.ifMatch);
  if (given.waitSeconds) headers.set("prefer", `wait=${given.waitSeconds}`);
  const init: RequestInit & { headers: Headers } = { method, headers, credentials: "same-origin" };
  if (given.body !== undefined) {
    headers.set("content-type", "application/json");
    init.body = JSON.stringify(given.body);
  }
  return init;
}

function isRepeatable(method: string, given: Options): boolean {
  return method === "GET" || given.idempotencyKey !== undefined;
}

async function fetchOnce(
  url: string,
  init: RequestInit & { headers: Headers },
  token: string | null,
  given: Options,
): Promise<Response> {
  if (token !== null) init.headers.set("authorization", `Bearer ${token}`);
  else init.headers.delete("authorization");
  const timeout = AbortSignal.timeout((TIMEOUT_SECONDS + (given.waitSeconds ?? 0)) * 1000);
  const signal = given.signal ? AbortSignal.any([given.signal, timeout]) : timeout;
  try {
    return await fetch(url, { ...init, signal });
  } catch (error) {
    if (given.signal?.aborted) throw error;
    throw new NoResponse(url, { cause: error });
  }
}

async function replyOf<T>(response: Response): Promise<Reply<T>> {
  const type = response.headers.get("content-type") ?? "";
  const data = (type.includes("json")
    ? await read(response)
    : type.startsWith("text/") ? await response.text() : undefined) as T;
  return { data, status: response.status, headers: response.headers, next: nextOf(response) };
}

async function read(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch (error) {
    throw new NoResponse(response.url, { cause: error });
  }
}

function nextOf(response: Response): string | null {
  const target = /<([^>]+)>;\s*rel="next"/.exec(response.headers.get("link") ?? "")?.[1];
  return target ? new URL(target, "http://shop").searchParams.get("cursor") : null;
}

async function errorOf(response: Response): Promise<ApiError> {
  let problem: Record<string, unknown> = {};
  try {
    problem = (await response.json()) as Record<string, unknown>;
  } catch {
    // a proxy's page
  }
  return new ApiError(
    response.status,
    String(problem.error ?? `HTTP_${response.status}`),
    String(problem.message ?? response.statusText),
    problem,
    response.headers.get("traceparent")?.split("-")[1] ?? (problem.traceId as string) ?? null,
    Number(response.headers.get("retry-after")) || null,
  );
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** True for an error after which the same submission may be sent again, with the same key. */
export function isUnanswered(error: unknown): boolean {
  return (
    error instanceof NoResponse ||
    (error instanceof ApiError &&
      (error.status >= 500 || error.status === 429 || error.status === 408 ||
        error.code === "REQUEST_IN_PROGRESS"))
  );
}
