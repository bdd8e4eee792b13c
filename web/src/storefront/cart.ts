/** The cart: on the server for an account, in this browser before. */
import { computed, effect, signal } from "@preact/signals";
import { ApiError, call } from "@shared/api/client";
import type { CartLine, CartSummary } from "@shared/api/contract";
import { submit } from "@shared/api/submissions";
import { account } from "@shared/session";

export interface Line {
  productId: number;
  quantity: number;
}

const KEY = "cart";
/** What a visitor without an account has chosen. */
export const guestLines = signal<Line[]>(stored());
export const cartLines = signal<CartLine[]>([]);

function stored(): Line[] {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]") as Line[];
    return kept.filter((line) => line.productId > 0 && line.quantity > 0).slice(0, 50);
  } catch {
    return [];
  }
}

effect(() => localStorage.setItem(KEY, JSON.stringify(guestLines.value)));

export const units = computed(() =>
  (account.value ? cartLines.value : guestLines.value).reduce((sum, line) => sum + line.quantity, 0),
);

export async function loadCart(signal?: AbortSignal): Promise<CartLine[]> {
  cartLines.value = await call("GET /cart", signal ? { signal } : {});
  return cartLines.value;
}

/** Where an order is sent, on which its shipping fee depends. */
export interface Place {
  country: string;
  postcode?: string;
}

/** What an order of the cart would cost now with these coupons, as the shop computes it. */
export function readSummary(
  coupons: readonly string[],
  place?: Place,
  signal?: AbortSignal,
): Promise<CartSummary> {
  return call("GET /cart/summary", {
    query: { ...place, ...(coupons.length ? { coupons: coupons.join() } : {}) },
    ...(signal ? { signal } : {}),
  });
}

export async function add(productId: number, quantity: number): Promise<void> {
  if (!account.value) {
    const before = guestLines.value.find((line) => line.productId === productId)?.quantity ?? 0;
    setGuestLine(productId, before + quantity);
    return;
  }
  const body = { productId, quantity };
  await submit("cart", ["add", body], (idempotencyKey) =>
    call("POST /cart/items", { body, idempotencyKey }),
  );
  await loadCart();
}

export async function change(productId: number, quantity: number): Promise<void> {
  if (!account.value) {
    setGuestLine(productId, quantity);
    return;
  }
  await submit("cart", ["set", productId, quantity], (idempotencyKey) =>
    call("PATCH /cart/items/{productId}", {
      path: { productId },
      body: { quantity },
      idempotencyKey,
    }),
  );
  await loadCart();
}

function setGuestLine(productId: number, quantity: number): void {
  const others = guestLines.value.filter((line) => line.productId !== productId);
  const bounded = Math.min(quantity, 1000);
  guestLines.value = quantity > 0 ? [...others, { productId, quantity: bounded }] : others;
}

/** Moves the visitor's lines into the cart of the account that has just signed in. */
export async function mergeGuestLines(): Promise<void> {
  for (const line of guestLines.value) {
    try {
      await add(line.productId, line.quantity);
    } catch (error) {
      // gone or sold out since: the rest is still wanted
      if (!(error instanceof ApiError) || error.status >= 500) throw error;
    }
    guestLines.value = guestLines.value.filter((each) => each.productId !== line.productId);
  }
  await loadCart();
}
