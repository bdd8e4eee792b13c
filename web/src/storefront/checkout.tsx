/** Address, coupons, payment method, and one submission: however often it is pressed, one order. */
import { ApiError, call } from "@shared/api/client";
import type { Address, CartCoupon, CartLine, CurrencyTotal, SavedAddress } from "@shared/api/contract";
import { submit } from "@shared/api/submissions";
import { Button, Empty, ErrorNotice, Loading, Notice } from "@shared/components/basic";
import { Main } from "@shared/components/frame";
import {
  Form,
  SelectField,
  type Sending,
  SendingError,
  TextField,
  useSending,
} from "@shared/components/form";
import { language, money } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { go, href } from "@shared/router";
import { account } from "@shared/session";
import type { ComponentChildren, TargetedEvent } from "preact";
import { useState } from "preact/hooks";
import { AddressFields, addressIn, AddressText, save, useAddresses } from "./addresses";
import { cartLines, loadCart, type Place, readSummary } from "./cart";
import { PriceLines } from "./parts";
import { obstacle, text } from "./sentences";

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

interface Priced {
  lines: CartLine[];
  total: CurrencyTotal | undefined;
}

async function readPriced(
  coupons: readonly string[],
  place: Place | undefined,
  signal: AbortSignal,
): Promise<Priced> {
  const [lines, summary] = await Promise.all([loadCart(signal), readSummary(coupons, place, signal)]);
  return { lines, total: summary.totals[0] };
}

export function Checkout() {
  const [coupons, setCoupons] = useState<string[]>([]);
  const [chosen, setPlace] = useState<Place | null>();
  const book = useAddresses();
  const place = (chosen === undefined ? placeOf(book.data?.[0]) : chosen) ?? undefined;
  const loaded = useLoaded(
    (signal) => readPriced(coupons, place, signal),
    [account.value?.id, language.value, coupons.join(), place?.postcode, place?.country],
  );
  const { data, error } = loaded;
  const isReady = data !== undefined && (book.data !== undefined || book.error !== undefined);
  return (
    <Main title={text("checkout")}>
      <h1>{text("checkout")}</h1>
      {error !== undefined && <ErrorNotice error={error} retry={loaded.reload} />}
      {!isReady && error === undefined && <Loading />}
      {data?.lines.length === 0 && (
        <Empty icon="bag" title={text("cartEmpty")}>
          <a class="button primary" href={href("/")}>{text("home")}</a>
        </Empty>
      )}
      {isReady && data.total && (
        <div class="split">
          <OrderForm
            lines={data.lines}
            total={data.total}
            coupons={coupons}
            addresses={book.data ?? []}
            setPlace={setPlace}
            reload={loaded.reload}
          />
          <aside class="card stack">
            <ul class="stack tight">
              {data.lines.map((line) => (
                <li class="row between" key={line.productId}>
                  <span>{line.name} × {line.quantity}</span>
                  <span class="number">{money(line.lineAmount, line.currency)}</span>
                </li>
              ))}
            </ul>
            <Coupons applied={data.total.coupons} change={setCoupons} />
            <PriceLines {...data.total} />
          </aside>
        </div>
      )}
    </Main>
  );
}

interface OrderFormProps {
  lines: CartLine[];
  total: CurrencyTotal;
  coupons: string[];
  addresses: SavedAddress[];
  setPlace: (place: Place | null) => void;
  reload: () => void;
}

function OrderForm({ lines, total, coupons, addresses, setPlace, reload }: OrderFormProps) {
  const sending = useSending();
  const [isChanged, setChanged] = useState(false);
  const amount = total.totalAmount;
  const place = async (values: Record<string, string>) => {
    const body = {
      paymentMethod: values.paymentMethod!,
      expectedTotalAmount: amount,
      coupons,
      ...(await destinationIn(values)),
    };
    try {
      const order = await submit("checkout", [body, lines], (idempotencyKey) =>
        call("POST /orders/from-cart", { body, idempotencyKey }),
      );
      cartLines.value = [];
      go(href(`/orders/${order.id}`), "replace");
    } catch (error) {
      setChanged(error instanceof ApiError && error.code === "PRICE_CHANGED");
      if (error instanceof ApiError && error.status === 409) reload();
      throw error;
    }
  };
  return (
    <div class="card">
      <Form
        sending={sending}
        label={text("pay", { total: money(amount, total.currency) })}
        onSend={place}
      >
        <h2 id="destination">{text("address")}</h2>
        <Destination addresses={addresses} sending={sending} setPlace={setPlace} />
        <h2>{text("method")}</h2>
        <MethodField />
        {isLocal && <Notice>{text("simulated")}</Notice>}
        {isChanged && (
          <Notice tone="warn">
            {text("priceChanged", { total: money(amount, total.currency) })}
          </Notice>
        )}
      </Form>
    </div>
  );
}

/** The saved address that was picked, or the new one, which is saved first if that is wanted. */
async function destinationIn(
  values: Record<string, string>,
): Promise<{ addressId: string } | { shippingAddress: Address }> {
  if (values.addressId) return { addressId: values.addressId };
  const address = addressIn(values);
  return values.keep ? { addressId: await save(address) } : { shippingAddress: address };
}

function placeOf(saved: SavedAddress | undefined): Place | null {
  if (!saved) return null;
  const { country, postcode } = saved.address;
  return { country: country ?? "KR", ...(postcode ? { postcode } : {}) };
}

interface DestinationProps {
  addresses: SavedAddress[];
  sending: Sending;
  setPlace: (place: Place | null) => void;
}

/** A saved address, or the fields of another one; tells the page where the order would be sent. */
function Destination({ addresses, sending, setPlace }: DestinationProps) {
  const [picked, setPicked] = useState(addresses[0]?.id ?? "");
  const pick = (id: string) => {
    setPicked(id);
    setPlace(placeOf(addresses.find((each) => each.id === id)));
  };
  const typed = ({ target }: TargetedEvent<HTMLElement>) => {
    if (!(target instanceof HTMLInputElement) || target.name !== "postcode") return;
    setPlace(target.validity.valid ? { country: "KR", postcode: target.value } : null);
  };
  const option = (id: string, label: ComponentChildren) => (
    <label class="option" key={id}>
      <input
        type="radio"
        name="addressId"
        value={id}
        checked={picked === id}
        onChange={() => pick(id)}
      />
      {label}
    </label>
  );
  return (
    <>
      {addresses.length > 0 && (
        <div class="stack tight" role="radiogroup" aria-labelledby="destination">
          {addresses.map((each) => option(each.id, <AddressText address={each.address} />))}
          {option("", text("otherAddress"))}
        </div>
      )}
      {picked === "" && (
        <div class="stack" onInput={typed}>
          <AddressFields address={{ recipient: account.value?.name ?? "" }} sending={sending} />
          <label class="option plain">
            <input type="checkbox" name="keep" value="yes" />
            {text("keepAddress")}
          </label>
        </div>
      )}
    </>
  );
}

/** The coupons of the order; one that cannot be used is not added, and the reason is shown. */
function Coupons({ applied, change }: { applied: CartCoupon[]; change: (codes: string[]) => void }) {
  const sending = useSending();
  const [rejected, setRejected] = useState<CartCoupon | null>(null);
  const [count, setCount] = useState(0);
  const codes = applied.map((coupon) => coupon.code);
  const apply = (event: TargetedEvent<HTMLFormElement>) => {
    event.preventDefault();
    const code = String(new FormData(event.currentTarget).get("code")).trim().toUpperCase();
    if (!code) return;
    void sending.run(async () => {
      const summary = await readSummary([...codes, code]);
      const found = summary.totals[0]?.coupons.find((each) => each.code === code);
      setRejected(found?.reason ? found : null);
      if (found?.reason) return;
      change([...codes, code]);
      setCount(count + 1);
    });
  };
  return (
    <div class="stack tight">
      {applied.map((coupon) => (
        <div class="row between" key={coupon.code}>
          <span>
            {coupon.code}
            {coupon.reason && <span class="bad small"> {obstacle(coupon.reason)}</span>}
          </span>
          <Button
            kind="quiet"
            aria-label={text("remove", { name: coupon.code })}
            onClick={() => change(codes.filter((code) => code !== coupon.code))}
          >
            {text("delete")}
          </Button>
        </div>
      ))}
      <form class="coupon" key={count} onSubmit={apply}>
        <TextField
          label={text("coupon")}
          name="code"
          autocomplete="off"
          pattern="[A-Za-z0-9][A-Za-z0-9\-]{2,31}"
          error={rejected?.reason ? `${rejected.code}: ${obstacle(rejected.reason)}` : undefined}
        />
        <Button type="submit" busy={sending.busy}>{text("apply")}</Button>
      </form>
      <SendingError sending={sending} />
    </div>
  );
}
