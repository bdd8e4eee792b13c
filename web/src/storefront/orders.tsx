/** The list of orders, and one order that is followed while it changes. */
import { ApiError, call, send } from "@shared/api/client";
import type { Order, OrderWithAddress } from "@shared/api/contract";
import { submit } from "@shared/api/submissions";
import { Badge, Button, Empty, ErrorNotice, Icon, Loading, Notice } from "@shared/components/basic";
import { Dialog } from "@shared/components/dialog";
import { announce, Main } from "@shared/components/frame";
import { Form, SelectField, SendingError, TextArea, useSending } from "@shared/components/form";
import { date, dateTime, language, money } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { href, place } from "@shared/router";
import { saveFile } from "@shared/save-file";
import { say } from "@shared/sentences";
import { useEffect, useRef, useState } from "preact/hooks";
import { MethodField } from "./checkout";
import { NotFound } from "./not-found";
import { OrderBadge, PriceLines } from "./parts";
import { reason, status, text } from "./sentences";

export function OrderList() {
  const [orders, setOrders] = useState<Order[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const first = useLoaded(
    async (signal) => {
      const page = await send("GET /orders/me", { query: { limit: 10 }, signal });
      setOrders(page.data);
      setNext(page.next);
      return page;
    },
    [],
  );
  const sending = useSending();
  const more = () =>
    sending.run(async () => {
      const page = await send("GET /orders/me", { query: { limit: 10, cursor: next! } });
      setOrders([...orders, ...page.data]);
      setNext(page.next);
    });
  return (
    <Main title={text("orders")}>
      <h1>{text("orders")}</h1>
      {first.error !== undefined && <ErrorNotice error={first.error} retry={first.reload} />}
      {first.data === undefined && first.error === undefined && <Loading />}
      {first.data && orders.length === 0 && (
        <Empty icon="receipt" title={text("noOrders")}>
          <a class="button primary" href={href("/")}>{text("home")}</a>
        </Empty>
      )}
      <ul class="stack tight">
        {orders.map((order) => (
          <li key={order.id}>
            <a class="card row between order-row" href={href(`/orders/${order.id}`)}>
              <span class="stack tight">
                <strong>{date(order.createdAt)}</strong>
                <span class="muted small">{text("lines", { count: order.items.length })}</span>
              </span>
              <span class="row">
                <span class="number">{money(order.totalAmount, order.currency)}</span>
                <OrderBadge order={order} />
                <Icon name="chevron" />
              </span>
            </a>
          </li>
        ))}
      </ul>
      <SendingError sending={sending} />
      {next !== null && (
        <p class="center"><Button busy={sending.busy} onClick={() => void more()}>{say("more")}</Button></p>
      )}
    </Main>
  );
}

const WAIT_SECONDS = 15;
const LOOK_AGAIN_MS = 3000;

/** The order, again whenever it may have changed: `Prefer: wait` answers once it is not PENDING. */
function useFollowed(id: string) {
  const loaded = useLoaded(
    (signal) => call("GET /orders/{orderId}", { path: { orderId: id }, signal }),
    [id, language.value],
  );
  const { data, set } = loaded;
  useEffect(() => {
    if (data === undefined || !isMoving(data)) return;
    const controller = new AbortController();
    const look = async () => {
      const began = Date.now();
      try {
        const order = await call("GET /orders/{orderId}", {
          path: { orderId: id },
          ...(data.status === "PENDING" ? { waitSeconds: WAIT_SECONDS } : {}),
          signal: controller.signal,
        });
        // an answer at once is no reason to ask again at once
        await pause(Math.max(0, LOOK_AGAIN_MS - (Date.now() - began)), isSame(order, data));
        if (!controller.signal.aborted) set(order);
      } catch {
        await pause(LOOK_AGAIN_MS, true);
        if (!controller.signal.aborted) set({ ...data });
      }
    };
    void look();
    return () => controller.abort();
  }, [data, id]);
  return loaded;
}

function pause(milliseconds: number, isWanted: boolean): Promise<void> {
  return isWanted ? new Promise((resolve) => setTimeout(resolve, milliseconds)) : Promise.resolve();
}

function isSame(one: Order, other: Order): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function isMoving(order: Order): boolean {
  return order.status === "PENDING" || order.status === "CANCELLING";
}

export function OrderPage({ id }: { id: string }) {
  const loaded = useFollowed(id);
  const { data, error } = loaded;
  if (error instanceof ApiError && error.status === 404) return <NotFound />;
  return (
    <Main title={text("order")}>
      {error !== undefined && <ErrorNotice error={error} retry={loaded.reload} />}
      {data ? <Details order={data} changed={loaded.reload} /> : error === undefined && <Loading />}
    </Main>
  );
}

function Details({ order, changed }: { order: OrderWithAddress; changed: () => void }) {
  const before = useRef(order.status);
  useEffect(() => {
    if (before.current !== order.status) announce(status(order.status));
    before.current = order.status;
  }, [order.status]);
  return (
    <div class="stack">
      <header class="row between">
        <h1>{text("order")}</h1>
        <OrderBadge order={order} />
      </header>
      {isMoving(order) && !order.payment?.nextAction && <p class="muted" role="status">{text("follow")}</p>}
      <NextStep order={order} changed={changed} />
      <div class="split">
        <div class="stack">
          <section class="card stack tight" aria-label={text("items")}>
            <h2>{text("items")}</h2>
            <ul class="stack tight">
              {order.items.map((item) => (
                <li class="row between" key={item.productId}>
                  <a href={href(`/products/${item.productId}`)}><ProductName id={item.productId} /></a>
                  <span class="number">
                    {item.quantity} × {money(item.unitPrice, order.currency)}
                  </span>
                </li>
              ))}
            </ul>
          </section>
          {order.shipments && order.shipments.length > 0 && (
            <section class="card stack tight">
              <h2>{text("shipments")}</h2>
              {order.shipments.map((shipment) => (
                <p class="row between" key={shipment.id}>
                  <span>
                    {shipment.carrier?.toUpperCase()} {shipment.trackingNumber}
                  </span>
                  <Badge>{status(shipment.status)}</Badge>
                </p>
              ))}
            </section>
          )}
          {order.returns && order.returns.length > 0 && (
            <section class="card stack tight">
              <h2>{text("returns")}</h2>
              {order.returns.map((each) => (
                <p class="row between" key={each.id}>
                  <span>{dateTime(each.createdAt)}</span>
                  <Badge>{status(each.status)}</Badge>
                </p>
              ))}
            </section>
          )}
          <Timeline order={order} />
        </div>
        <aside class="stack">
          <div class="card stack">
            <PriceLines {...order} />
            <dl class="facts small">
              <dt>{text("placed")}</dt>
              <dd>{dateTime(order.createdAt)}</dd>
              <dt>{text("orderNumber")}</dt>
              <dd class="mono">{order.id}</dd>
            </dl>
            {order.shippingAddress && (
              <address class="small">
                {order.shippingAddress.recipient}, {order.shippingAddress.phone}
                <br />
                {order.shippingAddress.postcode} {order.shippingAddress.line1}{" "}
                {order.shippingAddress.line2}
              </address>
            )}
          </div>
          <Actions order={order} changed={changed} />
        </aside>
      </div>
    </div>
  );
}

function ProductName({ id }: { id: number }) {
  const { data } = useLoaded(
    (signal) => call("GET /products/{productId}", { path: { productId: id }, signal }),
    [id, language.value],
  );
  return <>{data?.name ?? text("product", { id })}</>;
}

/** What the customer has to do for the payment, that it was declined, or why it is over. */
function NextStep({ order, changed }: { order: OrderWithAddress; changed: () => void }) {
  const sending = useSending();
  const action = order.payment?.nextAction;
  if (order.status === "PENDING" && action) {
    const url = action.type === "redirect" ? safeUrl(action.url) : null;
    return (
      <Notice tone="warn" title={text(isReturned() ? "confirming" : "actionNeeded")}>
        <p class="small">{text("until", { time: dateTime(action.until) })}</p>
        {action.type === "transfer" && (
          <p>
            {text("transferTo", {
              bank: action.bank ?? "",
              account: action.accountNumber ?? "",
              amount: money(action.amount ?? order.totalAmount, order.currency),
            })}
          </p>
        )}
        {url && <a class="button primary" href={url} rel="noreferrer">{text("payNow")}</a>}
      </Notice>
    );
  }
  if (order.status === "CANCELLED" && order.reason) {
    return <Notice tone="warn" title={reason(order.reason)} />;
  }
  if (order.status !== "PENDING" || order.payment?.status !== "DECLINED") return null;
  const pay = async ({ paymentMethod }: Record<string, string>) => {
    const body = { paymentMethod: paymentMethod! };
    await submit(`pay ${order.id}`, [body, order.payment!.attempt], (idempotencyKey) =>
      call("POST /orders/{orderId}/payments", { path: { orderId: order.id }, body, idempotencyKey }),
    );
    changed();
  };
  return (
    <Notice tone="bad" title={text("declined")}>
      <Form sending={sending} label={text("payAgain")} onSend={pay}><MethodField /></Form>
    </Notice>
  );
}

/** Whether the person comes from the payment provider, whose notice may arrive a moment later. */
function isReturned(): boolean {
  return place.value.query.has("returned");
}

/** Only addresses of web pages: the API's text is not trusted as an address. */
function safeUrl(url: string | null | undefined): string | null {
  return url && /^https?:\/\//.test(url) ? url : null;
}

function Actions({ order, changed }: { order: OrderWithAddress; changed: () => void }) {
  const [open, setOpen] = useState<"cancel" | "return" | null>(null);
  const canCancel = ["PENDING", "PAID"].includes(order.status) && !order.shipments?.length;
  const canReturn = order.shipments?.some((shipment) => shipment.status === "DELIVERED") ?? false;
  const close = () => setOpen(null);
  const sending = useSending();
  const saveReceipt = () =>
    sending.run(async () => {
      const page: unknown = await call("GET /orders/{orderId}/receipt", {
        path: { orderId: order.id },
        headers: { accept: "text/html" },
      });
      saveFile(`receipt-${order.id}.html`, String(page), "text/html");
    });
  return (
    <div class="actions">
      {canCancel && (
        <Button kind="danger" onClick={() => setOpen("cancel")}>{text("cancelOrder")}</Button>
      )}
      {canReturn && <Button onClick={() => setOpen("return")}>{text("returnOrder")}</Button>}
      {order.status !== "PENDING" && (
        <Button icon="receipt" busy={sending.busy} onClick={() => void saveReceipt()}>
          {text("receipt")}
        </Button>
      )}
      <SendingError sending={sending} />
      {open === "cancel" && <CancelDialog {...{ order, changed, close }} />}
      {open === "return" && <ReturnDialog {...{ order, changed, close }} />}
    </div>
  );
}

interface OfOrder {
  order: OrderWithAddress;
  changed: () => void;
  close: () => void;
}

function CancelDialog({ order, changed, close }: OfOrder) {
  const sending = useSending();
  const cancel = async () => {
    await submit(`cancel ${order.id}`, null, (idempotencyKey) =>
      call("PATCH /orders/{orderId}/cancel", { path: { orderId: order.id }, idempotencyKey }),
    );
    close();
    changed();
  };
  return (
    <Dialog title={text("cancelOrder")} onClose={close}>
      <Form
        sending={sending}
        kind="danger"
        label={text("cancelOrder")}
        onSend={cancel}
        secondary={<Button kind="quiet" onClick={close}>{say("close")}</Button>}
      >
        <p>{text("cancelSure")}</p>
      </Form>
    </Dialog>
  );
}

function ReturnDialog({ order, changed, close }: OfOrder) {
  const sending = useSending();
  const request = async (values: Record<string, string>) => {
    const items = order.items
      .map((item) => ({
        productId: item.productId,
        quantity: Number(values[`quantity-${item.productId}`] ?? 0),
      }))
      .filter((item) => item.quantity > 0);
    const body = { items, reason: values.reason! };
    await submit(`return ${order.id}`, body, (idempotencyKey) =>
      call("POST /orders/{orderId}/returns", { path: { orderId: order.id }, body, idempotencyKey }),
    );
    announce(text("returned"));
    close();
    changed();
  };
  return (
    <Dialog title={text("returnOrder")} onClose={close}>
      <Form sending={sending} label={text("returnSend")} onSend={request}>
        {order.items.map((item) => (
          <SelectField
            key={item.productId}
            label={<ProductName id={item.productId} />}
            name={`quantity-${item.productId}`}
          >
            {Array.from({ length: item.quantity + 1 }, (_, count) => (
              <option key={count} value={String(count)} selected={count === item.quantity}>
                {count}
              </option>
            ))}
          </SelectField>
        ))}
        <TextArea label={text("returnReason")} name="reason" maxLength={200} required />
      </Form>
    </Dialog>
  );
}

function Timeline({ order }: { order: OrderWithAddress }) {
  const { data } = useLoaded(
    (signal) => call("GET /orders/{orderId}/timeline", { path: { orderId: order.id }, signal }),
    [order.id, order.status, order.payment?.status],
  );
  const steps = data?.filter((entry) => entry.entity === "order") ?? [];
  if (steps.length === 0) return null;
  return (
    <section class="card stack tight">
      <h2>{text("timeline")}</h2>
      <ol class="timeline">
        {steps.map((entry) => (
          <li key={`${entry.at} ${entry.to}`}>
            <span>{status(entry.to as Order["status"]) ?? entry.to}</span>
            <time class="muted small" datetime={entry.at}>{dateTime(entry.at)}</time>
          </li>
        ))}
      </ol>
    </section>
  );
}
