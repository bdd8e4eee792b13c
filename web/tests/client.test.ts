import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError, call, configure, NoResponse } from "@shared/api/client";

interface Sent {
  path: string;
  key: string | null;
  token: string | null;
}

const sent: Sent[] = [];
const LOST = new TypeError("Failed to fetch");

/** Answers the requests in turn, the last answer also each further one: a status, or no answer. */
function answerWith(...answers: (number | typeof LOST)[]): void {
  vi.stubGlobal("fetch", (path: string, init: { headers: Headers }) => {
    const { headers } = init;
    sent.push({ path, key: headers.get("idempotency-key"), token: headers.get("authorization") });
    const answer = answers.length > 1 ? answers.shift()! : answers[0]!;
    if (typeof answer !== "number") return Promise.reject(answer);
    const body = answer < 300 ? [] : { error: "X", message: "x" };
    const type = { "content-type": "application/json" };
    return Promise.resolve(new Response(JSON.stringify(body), { status: answer, headers: type }));
  });
}

/** The result or the error of a request, without the time that it waits between its attempts. */
async function outcome(request: Promise<unknown>): Promise<unknown> {
  const settled = request.catch((error: unknown) => error);
  await vi.runAllTimersAsync();
  return settled;
}

const read = () => call("GET /categories", {});
const place = (idempotencyKey?: string) =>
  call("POST /orders/from-cart", { body: {}, ...(idempotencyKey ? { idempotencyKey } : {}) });

describe("the client", () => {
  beforeEach(() => {
    vi.useFakeTimers();
    sent.length = 0;
    configure({ authority: { accessToken: () => null, renew: () => Promise.resolve(null) } });
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it.each([429, 502, 503, 504])("repeats a read after status %i", async (status) => {
    answerWith(status, 200);
    expect(await outcome(read())).toEqual([]);
    expect(sent).toHaveLength(2);
  });

  it("repeats a read after a lost connection, four times in all", async () => {
    answerWith(LOST);
    expect(await outcome(read())).toBeInstanceOf(NoResponse);
    expect(sent).toHaveLength(4);
  });

  it.each([400, 404, 409, 500])("does not repeat status %i", async (status) => {
    answerWith(status, 200);
    expect(await outcome(read())).toMatchObject({ status, code: "X" });
    expect(sent).toHaveLength(1);
  });

  it("repeats a submission with its key", async () => {
    answerWith(LOST, 503, 200);
    await outcome(place("k1"));
    expect(sent.map((each) => each.key)).toEqual(["k1", "k1", "k1"]);
  });

  it("sends a submission without a key once", async () => {
    answerWith(503, 200);
    expect(await outcome(place())).toBeInstanceOf(ApiError);
    expect(sent).toHaveLength(1);
  });

  it("renews the token once and sends the request again with it", async () => {
    const renew = vi.fn(() => Promise.resolve("new"));
    configure({ authority: { accessToken: () => "old", renew } });
    answerWith(401, 200);
    expect(await outcome(place())).toEqual([]);
    expect(sent.map((each) => each.token)).toEqual(["Bearer old", "Bearer new"]);
    expect(renew).toHaveBeenCalledOnce();
  });

  it("gives up when the session has ended, or the new token is rejected too", async () => {
    answerWith(401);
    expect(await outcome(read())).toMatchObject({ status: 401 });
    expect(sent).toHaveLength(1);
    configure({ authority: { accessToken: () => "old", renew: () => Promise.resolve("new") } });
    expect(await outcome(read())).toMatchObject({ status: 401 });
    expect(sent).toHaveLength(3);
  });
});
