import { beforeEach, describe, expect, it } from "vitest";
import { activities, history, isPaused, type Summary, take } from "../src/live/stream";

function summaryOf(messages: number, count: number): Summary {
  const activity = { kind: "delivery", function: "charge", subject: "order.placed", code: 204 };
  return {
    at: "2026-11-29T16:00:00Z",
    functions: [{ name: "charge", messages } as Summary["functions"][number]],
    pending: 0,
    faults: {},
    invariants: [],
    invariantsError: "",
    flows: [],
    activities: Array.from({ length: count }, () => ({ ...activity, seconds: 0, detail: "" })),
    leftOut: 0,
  };
}

describe("the stream of the live view", () => {
  beforeEach(() => {
    activities.value = [];
    isPaused.value = false;
  });

  it("keeps a bounded number of activities and intervals", () => {
    for (let index = 1; index <= 100; index++) take(summaryOf(index, 40));
    expect(activities.value).toHaveLength(80);
    expect(history.value.get("charge")).toHaveLength(60);
  });

  it("keeps the activities that were shown when it was paused", () => {
    take(summaryOf(1, 2));
    isPaused.value = true;
    take(summaryOf(2, 3));
    expect(activities.value).toHaveLength(2);
  });

  it("counts the messages since the summary before", () => {
    take(summaryOf(1000, 0));
    take(summaryOf(1007, 0));
    expect(history.value.get("charge")?.at(-1)).toBe(7);
  });
});
