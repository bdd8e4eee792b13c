/**
 * The session of the signed-in account.
 *
 * The access token is in memory only.  The refresh token is in a cookie that no script can read;
 * the server takes it from a request of the same origin with the header `Refresh-Token: cookie`.
 */
import { signal } from "@preact/signals";
import type { AccountView } from "./api/contract";
import { ApiError, type BodyOf, call, configure } from "./api/client";

export const COOKIE_MODE = { "refresh-token": "cookie" };
// not a secret: whether asking for a token is worth a request
const HINT = "signed-in";

interface Access {
  token: string;
  expiresAt: number;
}

let access: Access | null = null;
let renewal: Promise<string | null> | null = null;

/** The account; undefined until it is known whether there is a session, null without one. */
export const account = signal<AccountView | null | undefined>(undefined);

const channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("session");

/** Continues the session of the cookie, if there is one. */
export async function resume(): Promise<void> {
  configure({ authority: { accessToken, renew } });
  channel?.addEventListener("message", () => {
    // another tab has signed in or out
    access = null;
    void load();
  });
  await load();
}

async function load(): Promise<void> {
  if (localStorage.getItem(HINT) === null) {
    account.value = null;
    return;
  }
  try {
    if (access === null && (await renew()) === null) return;
    account.value = await call("GET /users/me", {});
  } catch (error) {
    // the account page loads again; the shop is usable without an account
    if (account.value === undefined) account.value = null;
    if (!(error instanceof ApiError)) throw error;
  }
}

export async function logIn(email: string, password: string, code?: string): Promise<void> {
  const pair = await call("POST /auth/login", {
    body: code ? { email, password, code } : { email, password },
    authenticated: false,
    headers: COOKIE_MODE,
  });
  keep(pair);
  account.value = await call("GET /users/me", {});
  channel?.postMessage("changed");
}

export async function logOut(): Promise<void> {
  try {
    await call("POST /auth/logout", { body: {}, headers: COOKIE_MODE });
  } finally {
    forget();
    channel?.postMessage("changed");
  }
}

/** Ends the session on this side, as after the account was closed. */
export function forget(): void {
  access = null;
  localStorage.removeItem(HINT);
  account.value = null;
}

function accessToken(): string | null {
  return access !== null && access.expiresAt > Date.now() ? access.token : null;
}

/** A new access token by the cookie; null when the session has ended.  One request at a time. */
function renew(): Promise<string | null> {
  renewal ??= inOneTab(refresh).finally(() => (renewal = null));
  return renewal;
}

async function refresh(): Promise<string | null> {
  if (localStorage.getItem(HINT) === null) return null;
  try {
    keep(await call("POST /auth/refresh", {
      body: {} as BodyOf<"POST /auth/refresh">,
      authenticated: false,
      headers: COOKIE_MODE,
    }));
    return accessToken();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status >= 500 || error.status === 429) throw error;
    forget();
    return null;
  }
}

/** The token of the cookie is valid once, so tabs take turns. */
function inOneTab<T>(run: () => Promise<T>): Promise<T> {
  return navigator.locks ? (navigator.locks.request("refresh-token", run) as Promise<T>) : run();
}

function keep(pair: { accessToken: string; expiresIn: number }): void {
  access = { token: pair.accessToken, expiresAt: Date.now() + (pair.expiresIn - 15) * 1000 };
  localStorage.setItem(HINT, "1");
}
