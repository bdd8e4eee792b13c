/** The cart. */
import { call } from "@shared/api/client";
import type { CurrencyTotal } from "@shared/api/contract";
import { Empty, ErrorNotice, IconButton, Loading, Notice } from "@shared/components/basic";
import { Main } from "@shared/components/frame";
import { SendingError, useSending } from "@shared/components/form";
import { language, money, number } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { href } from "@shared/router";
import { account } from "@shared/session";
import { change, guestLines, type Line, loadCart, readSummary } from "./cart";
import { PriceLines, Stepper } from "./parts";
import { text } from "./sentences";

interface Shown {
  productId: number;
  name: string;
  price: number;
  currency: string;
  quantity: number;
  lineAmount: number;
  stockQuantity: number;
  available: boolean;
}

interface Content {
  lines: Shown[];
  totals: CurrencyTotal[];
}

async function read(signal: AbortSignal): Promise<Content> {
  if (account.value) {
    const [lines, { totals }] = await Promise.all([loadCart(signal), readSummary([], undefined, signal)]);
    return { lines, totals };
  }
  const found = await Promise.all(guestLines.value.map((line) => shownOf(line, signal)));
  return { lines: found.filter((line) => line !== null), totals: [] };
}

/** A line of a visitor's cart at the present price; null for a product that is gone. */
async function shownOf(line: Line, signal: AbortSignal): Promise<Shown | null> {
  try {
    const product = await call("GET /products/{productId}", {
      path: { productId: line.productId },
      signal,
    });
    return {
      productId: product.id,
      name: product.name,
      price: product.price,
      currency: product.currency,
      quantity: line.quantity,
      lineAmount: product.price * line.quantity,
      stockQuantity: product.stockQuantity,
      available: product.stockQuantity >= line.quantity,
    };
  } catch (error) {
    if ((error as { status?: number }).status === 404) return null;
    throw error;
  }
}

export function CartPage() {
  const loaded = useLoaded(read, [account.value?.id, language.value]);
  const sending = useSending();
  const lines = loaded.data?.lines;
  const set = (productId: number, quantity: number) =>
    sending.run(async () => {
      await change(productId, quantity);
      loaded.reload();
    });
  return (
    <Main title={text("cart")}>
      <h1>{text("cart")}</h1>
      {loaded.error !== undefined && <ErrorNotice error={loaded.error} retry={loaded.reload} />}
      {lines === undefined && loaded.error === undefined && <Loading />}
      {lines?.length === 0 && (
        <Empty icon="bag" title={text("cartEmpty")}>
          <a class="button primary" href={href("/")}>{text("home")}</a>
        </Empty>
      )}
      {lines !== undefined && lines.length > 0 && (
        <div class="split">
          <ul class="lines card" aria-busy={sending.busy}>
            {lines.map((line) => (
              <li key={line.productId}>
                <a class="name" href={href(`/products/${line.productId}`)}>{line.name}</a>
                <Stepper
                  label={`${text("quantity")}: ${line.name}`}
                  value={line.quantity}
                  max={Math.min(Math.max(line.stockQuantity, 1), 1000)}
                  onChange={(value) => void set(line.productId, value)}
                />
                <span class="number amount">{money(line.lineAmount, line.currency)}</span>
                <IconButton
                  icon="trash"
                  label={text("remove", { name: line.name })}
                  onClick={() => void set(line.productId, 0)}
                />
                {!line.available && (
                  <p class="small bad">
                    {text("lineUnavailable", { count: number(line.stockQuantity) })}
                  </p>
                )}
              </li>
            ))}
          </ul>
          <aside class="card stack">
            {loaded.data?.totals.map((total) => <PriceLines key={total.currency} {...total} />)}
            {!account.value && <Goods lines={lines} />}
            <SendingError sending={sending} />
            <a
              class="button primary wide"
              href={href(account.value ? "/checkout" : "/sign-in", account.value ? {} : { next: "/checkout" })}
            >
              {text("toCheckout")}
            </a>
            {!account.value && <Notice>{text("guest")}</Notice>}
          </aside>
        </div>
      )}
    </Main>
  );
}

/** The goods of a visitor by currency; shipping and discounts are known once there is an account. */
function Goods({ lines }: { lines: readonly Shown[] }) {
  const sums = new Map<string, number>();
  for (const line of lines) {
    sums.set(line.currency, (sums.get(line.currency) ?? 0) + line.lineAmount);
  }
  return (
    <dl class="amounts">
      {[...sums].map(([currency, amount]) => (
        <div class="sum" key={currency}>
          <dt>{text("goods")}</dt>
          <dd>{money(amount, currency)}</dd>
        </div>
      ))}
    </dl>
  );
}
