/**
 * Idempotency keys of submissions.
 *
 * A submission keeps its key until it is answered, also over a reload of the page: sending it again
 * after a lost response returns the first one's result.  Another content is another submission.
 */
import { ApiError, isUnanswered } from "./client";

const PREFIX = "submission:";

/** Runs `send` with the key of this submission; forgets the key once there is an answer. */
export async function submit<T>(
  name: string,
  content: unknown,
  send: (idempotencyKey: string) => Promise<T>,
): Promise<T> {
  const digest = JSON.stringify(content ?? null);
  const key = keyOf(name, digest);
  try {
    const result = await send(key);
    sessionStorage.removeItem(PREFIX + name);
    return result;
  } catch (error) {
    if (error instanceof ApiError && !isUnanswered(error)) sessionStorage.removeItem(PREFIX + name);
    throw error;
  }
}

function keyOf(name: string, digest: string): string {
  const kept = sessionStorage.getItem(PREFIX + name);
  if (kept !== null) {
    const [key, of] = JSON.parse(kept) as [string, string];
    if (of === digest) return key;
  }
  const key = newKey();
  sessionStorage.setItem(PREFIX + name, JSON.stringify([key, digest]));
  return key;
}

/** 128 random bits as 32 hexadecimal digits. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
