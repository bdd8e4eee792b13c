import { cleanup, render, screen } from "@testing-library/preact";
import type { AccountView, OrderRecords } from "@shared/api/contract";
import { account } from "@shared/session";
import { afterEach, describe, expect, it, vi } from "vitest";
import { OrderPage } from "../src/admin/order";

const HOSTILE = '<img src=x onerror="alert(1)">';
const ORDER: OrderRecords = {
  id: "o1",
  userId: 1,
  status: "PAID",
  reason: null,
  totalAmount: 1000,
  currency: "KRW",
  paymentMethod: "CARD",
  createdAt: "2026-11-29T16:00:00Z",
  updatedAt: "2026-11-29T16:00:00Z",
  expiresAt: "2026-11-29T16:15:00Z",
  shippingAddress: null,
  items: [{ productId: 1, productName: HOSTILE, quantity: 1, unitPrice: 1000, lineAmount: 1000 }],
  priceLines: [{ kind: "GOODS", productId: 1, amount: 1000, vatAmount: 91, vatPercent: 10 }],
  payments: [{ id: "p1", status: "CAPTURED", amount: 1000, currency: "KRW", paymentMethod: "CARD", createdAt: "2026-11-29T16:00:00Z" } as OrderRecords["payments"][number]],
  refunds: [],
  disputes: [],
  shipments: [],
  returns: [],
  statusHistory: [],
  postings: [],
  events: [],
  notes: [{ id: "n1", authorId: 3, text: HOSTILE, createdAt: "2026-11-29T16:00:00Z" }],
};

async function actionsOf(role: string): Promise<string[]> {
  account.value = { id: 9, role } as AccountView;
  const body = JSON.stringify(ORDER);
  const headers = { "content-type": "application/json" };
  vi.stubGlobal("fetch", () => Promise.resolve(new Response(body, { headers })));
  render(<OrderPage id="o1" />);
  await screen.findAllByText(HOSTILE);
  return screen.getAllByRole("button").map((each) => each.textContent ?? "");
}

describe("the page of an order", () => {
  afterEach(() => {
    cleanup();
    vi.unstubAllGlobals();
  });

  it("offers support to cancel and to refund", async () => {
    expect(await actionsOf("support")).toEqual(["Cancel the order", "Refund", "Add a note"]);
  });

  it("offers staff to pack", async () => {
    expect(await actionsOf("staff")).toEqual(["Pack", "Add a note"]);
  });

  it("offers finance no action on the order", async () => {
    expect(await actionsOf("finance")).toEqual(["Add a note"]);
  });

  it("shows markup in names and notes as text", async () => {
    await actionsOf("finance");
    expect(document.querySelector("img")).toBeNull();
  });
});
