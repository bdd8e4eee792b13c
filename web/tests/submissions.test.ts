import { beforeEach, describe, expect, it } from "vitest";
import { ApiError, NoResponse } from "@shared/api/client";
import { submit } from "@shared/api/submissions";

const KEY = /^[0-9a-f]{32}$/;

async function keyOfAttempt(content: unknown, outcome?: Error): Promise<string> {
  let used = "";
  await submit("order", content, (key) => {
    used = key;
    return outcome ? Promise.reject(outcome) : Promise.resolve(null);
  }).catch(() => undefined);
  return used;
}

describe("submissions", () => {
  beforeEach(() => sessionStorage.clear());

  it("keeps the key after a lost response", async () => {
    const first = await keyOfAttempt({ a: 1 }, new NoResponse());
    expect(first).toMatch(KEY);
    expect(await keyOfAttempt({ a: 1 })).toBe(first);
  });

  it.each([500, 503, 429])("keeps the key after status %i", async (status) => {
    const first = await keyOfAttempt({ a: 1 }, new ApiError(status, "X", "x"));
    expect(await keyOfAttempt({ a: 1 })).toBe(first);
  });

  it("takes another key after an answer", async () => {
    const first = await keyOfAttempt({ a: 1 });
    expect(await keyOfAttempt({ a: 1 })).not.toBe(first);
    const rejected = await keyOfAttempt({ a: 2 }, new ApiError(409, "OUT_OF_STOCK", "x"));
    expect(await keyOfAttempt({ a: 2 })).not.toBe(rejected);
  });

  it("takes another key for another content", async () => {
    const first = await keyOfAttempt({ a: 1 }, new NoResponse());
    expect(await keyOfAttempt({ a: 2 })).not.toBe(first);
  });
});
