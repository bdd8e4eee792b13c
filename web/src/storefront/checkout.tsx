/** Address, payment method, and one submission: however often it is pressed, one order. */
import { ApiError, call } from "@shared/api/client";
import { submit } from "@shared/api/submissions";
import { Empty, ErrorNotice, Loading, Notice } from "@shared/components/basic";
import { Main } from "@shared/components/frame";
import { Form, SelectField, TextField, useSending } from "@shared/components/form";
import { language, money } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { go, href } from "@shared/router";
import { account } from "@shared/session";
import { useState } from "preact/hooks";
import { cartLines } from "./cart";
import { linesNow, totalsOf } from "./cart-page";
import { text } from "./sentences";

/** Cards of the payment simulator are offered on a local platform only. */
export const isLocal = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
export const METHODS = isLocal
  ? ({
      CARD: "methodCard",
      CARD_REDIRECT: "methodRedirect",
      CARD_DECLINED: "methodDeclined",
    } as const)
  : ({ CARD: "methodCard" } as const);

export function MethodField() {
  return (
    <SelectField label={text("method")} name="paymentMethod" required>
      {Object.entries(METHODS).map(([value, name]) => (
        <option key={value} value={value}>{text(name)}</option>
      ))}
    </SelectField>
  );
}

export function Checkout() {
  const loaded = useLoaded(linesNow, [account.value?.id, language.value]);
  const sending = useSending();
  const [changed, setChanged] = useState<number | null>(null);
  const lines = loaded.data;
  const [total] = lines ? totalsOf(lines) : [];
  const amount = changed ?? total?.[1] ?? 0;

  const place = async (values: Record<string, string>) => {
    const body = {
      paymentMethod: values.paymentMethod!,
      expectedTotalAmount: amount,
      shippingAddress: {
        recipient: values.recipient!,
        phone: values.phone!,
        country: "KR",
        postcode: values.postcode!,
        line1: values.line1!,
        line2: values.line2 || null,
      },
    };
    try {
      const order = await submit("checkout", [body, lines], (idempotencyKey) =>
        call("POST /orders/from-cart", { body, idempotencyKey }),
      );
      cartLines.value = [];
      go(href(`/orders/${order.id}`), "replace");
    } catch (error) {
      if (error instanceof ApiError && error.code === "PRICE_CHANGED") {
        setChanged(Number(error.problem.totalAmount) || null);
        loaded.reload();
      }
      throw error;
    }
  };

  return (
    <Main title={text("checkout")}>
      <h1>{text("checkout")}</h1>
      {loaded.error !== undefined && <ErrorNotice error={loaded.error} retry={loaded.reload} />}
      {lines === undefined && loaded.error === undefined && <Loading />}
      {lines?.length === 0 && (
        <Empty icon="bag" title={text("cartEmpty")}>
          <a class="button primary" href={href("/")}>{text("home")}</a>
        </Empty>
      )}
      {lines !== undefined && lines.length > 0 && total && (
        <div class="split">
          <div class="card">
            <Form sending={sending} label={text("pay", { total: money(amount, total[0]) })} onSend={place}>
              <h2>{text("address")}</h2>
              <TextField
                label={text("recipient")}
                name="recipient"
                autocomplete="name"
                value={account.value?.name ?? ""}
                maxLength={100}
                error={sending.errorOf("recipient")}
                required
              />
              <TextField
                label={text("phone")}
                name="phone"
                type="tel"
                autocomplete="tel"
                error={sending.errorOf("phone")}
                required
              />
              <TextField
                label={text("postcode")}
                name="postcode"
                inputMode="numeric"
                autocomplete="postal-code"
                pattern="[0-9]{5}"
                hint={text("postcodeHint")}
                error={sending.errorOf("postcode")}
                required
              />
              <TextField
                label={text("line1")}
                name="line1"
                autocomplete="address-line1"
                error={sending.errorOf("line1")}
                required
              />
              <TextField
                label={text("line2")}
                name="line2"
                autocomplete="address-line2"
                error={sending.errorOf("line2")}
              />
              <h2>{text("method")}</h2>
              <MethodField />
              {isLocal && <Notice>{text("simulated")}</Notice>}
              {changed !== null && (
                <Notice tone="warn">
                  {text("priceChanged", { total: money(changed, total[0]) })}
                </Notice>
              )}
            </Form>
          </div>
          <aside class="card stack">
            <ul class="stack tight">
              {lines.map((line) => (
                <li class="row between" key={line.productId}>
                  <span>{line.name} × {line.quantity}</span>
                  <span class="number">{money(line.lineAmount, line.currency)}</span>
                </li>
              ))}
            </ul>
            <dl class="amounts">
              <div class="sum">
                <dt>{text("total")}</dt>
                <dd>{money(amount, total[0])}</dd>
              </div>
            </dl>
          </aside>
        </div>
      )}
    </Main>
  );
}
