/** The actions of support and staff on an order, its shipments and its returns. */
import { call } from "@shared/api/client";
import type { OrderRecords, ReturnRecord, Shipment } from "@shared/api/contract";
import { SelectField, TextArea, TextField } from "@shared/components/form";
import { has } from "./access";
import type { Action, Values } from "./parts";
import { say, type Sentence } from "./sentences";

interface Item {
  productId: number;
  quantity: number;
}

/** The actions on the order itself that the account's role has. */
export function actionsOf(order: OrderRecords): Action[] {
  const found: Action[] = [];
  if (has("support") && (order.status === "PENDING" || order.status === "PAID")) found.push(cancel(order));
  if (has("support") && order.payments.some((each) => each.status === "CAPTURED")) found.push(refund(order));
  const left = unsent(order);
  if (has("staff") && order.status === "PAID" && left.length > 0) found.push(pack(order, left));
  return found;
}

function cancel(order: OrderRecords): Action {
  return {
    name: `cancel ${order.id}`,
    label: "cancelOrder",
    confirmation: "confirmCancel",
    danger: true,
    fields: <TextArea name="reason" label={say("reason")} maxLength={200} required />,
    send: ({ reason = "" }, idempotencyKey) =>
      call("PATCH /admin/orders/{orderId}/cancel", {
        path: { orderId: order.id },
        body: { reason },
        idempotencyKey,
      }),
  };
}

function refund(order: OrderRecords): Action {
  return {
    name: `refund ${order.id}`,
    label: "refund",
    confirmation: "confirmRefund",
    danger: true,
    fields: <RefundFields currency={order.currency} />,
    send: (values, idempotencyKey) =>
      call("POST /orders/{orderId}/refunds", {
        path: { orderId: order.id },
        body: refundOf(values),
        idempotencyKey,
      }),
  };
}

function pack(order: OrderRecords, left: readonly Item[]): Action {
  return {
    name: `ship ${order.id}`,
    label: "ship",
    confirmation: "confirmShip",
    fields: <Quantities of={order} items={left} />,
    send: (values, idempotencyKey) =>
      call("POST /admin/orders/{orderId}/shipments", {
        path: { orderId: order.id },
        body: { items: chosen(left, values).filter((each) => each.quantity > 0) },
        idempotencyKey,
      }),
  };
}

/** Units that are neither in a shipment nor returned before they were sent. */
function unsent(order: OrderRecords): Item[] {
  const gone = [
    ...order.shipments.filter((each) => each.status !== "CANCELLED"),
    ...order.returns.filter((each) => each.status === "UNSENT"),
  ].flatMap((each) => each.items);
  return order.items
    .map(({ productId, quantity }) => ({
      productId,
      quantity: gone
        .filter((each) => each.productId === productId)
        .reduce((rest, each) => rest - each.quantity, quantity),
    }))
    .filter((each) => each.quantity > 0);
}

/** A field for the number of units of each product, at most those that there are. */
function Quantities({ of, items }: { of: OrderRecords; items: readonly Item[] }) {
  return (
    <>
      {items.map(({ productId, quantity }) => (
        <TextField
          key={productId}
          name={`quantity ${productId}`}
          label={nameOf(of, productId)}
          hint={say("atMost", { count: quantity })}
          type="number"
          min={0}
          max={quantity}
          value={quantity}
          required
        />
      ))}
    </>
  );
}

function chosen(items: readonly Item[], values: Values): Item[] {
  return items.map(({ productId }) => ({ productId, quantity: Number(values[`quantity ${productId}`]) }));
}

function RefundFields({ currency }: { currency: string }) {
  return (
    <>
      <TextField name="amount" label={`${say("amount")} (${currency})`} inputMode="numeric" pattern="[0-9]+" required />
      <TextArea name="reason" label={say("reason")} maxLength={200} required />
      <SelectField name="means" label={say("means")} value="PROVIDER">
        {(["PROVIDER", "OTHER_MEANS", "WRITE_OFF"] as const).map((each) => (
          <option key={each} value={each}>{say(each)}</option>
        ))}
      </SelectField>
      <TextField name="reference" label={say("reference")} hint={say("referenceHint")} maxLength={100} />
      <label class="row"><input type="checkbox" name="restock" value="true" /> {say("restock")}</label>
    </>
  );
}

function refundOf(values: Values) {
  const means = values.means as "PROVIDER" | "OTHER_MEANS" | "WRITE_OFF";
  return {
    amount: Number(values.amount),
    reason: values.reason ?? "",
    means,
    restock: values.restock === "true",
    ...(values.reference ? { reference: values.reference } : {}),
  };
}

export function actionsOfShipment(order: OrderRecords, shipment: Shipment): Action[] {
  if (!has("staff")) return [];
  const change = (
    label: "shipped" | "delivered" | "drop",
    confirmation: Sentence,
    status: "SHIPPED" | "DELIVERED" | "CANCELLED",
  ): Action => ({
    name: `${label} ${shipment.id}`,
    label,
    confirmation,
    danger: status === "CANCELLED",
    fields: status === "SHIPPED" && <CarrierFields />,
    send: ({ carrier, trackingNumber }, idempotencyKey) =>
      call("PATCH /admin/orders/{orderId}/shipments/{shipmentId}", {
        path: { orderId: order.id, shipmentId: shipment.id },
        body: { status, ...(carrier && trackingNumber ? { carrier, trackingNumber } : {}) },
        idempotencyKey,
      }),
  });
  if (shipment.status === "SHIPPED") return [change("delivered", "confirmDelivered", "DELIVERED")];
  if (shipment.status !== "PREPARING") return [];
  return [change("shipped", "confirmShipped", "SHIPPED"), change("drop", "confirmDrop", "CANCELLED")];
}

function CarrierFields() {
  return (
    <>
      <TextField name="carrier" label={say("carrier")} placeholder="cj" required />
      <TextField name="trackingNumber" label={say("trackingNumber")} required />
    </>
  );
}

export function actionsOfReturn(order: OrderRecords, row: ReturnRecord): Action[] {
  const decide = (label: "approve" | "reject", confirmation: Sentence): Action => ({
    name: `${label} ${row.id}`,
    label,
    confirmation,
    danger: label === "reject",
    send: (_, idempotencyKey) =>
      call("PATCH /admin/orders/{orderId}/returns/{returnId}", {
        path: { orderId: order.id, returnId: row.id },
        body: { status: label === "approve" ? "APPROVED" : "REJECTED" },
        idempotencyKey,
      }),
  });
  const found: Action[] = [];
  if (has("support") && row.status === "REQUESTED") found.push(decide("approve", "confirmApprove"));
  if (has("support") && ["REQUESTED", "APPROVED"].includes(row.status)) {
    found.push(decide("reject", "confirmReject"));
  }
  if (has("staff") && row.status === "APPROVED") found.push(receive(order, row));
  return found;
}

function receive(order: OrderRecords, row: ReturnRecord): Action {
  return {
    name: `receive ${row.id}`,
    label: "receive",
    confirmation: "confirmReceive",
    fields: <Quantities of={order} items={row.items} />,
    send: (values, idempotencyKey) =>
      call("POST /admin/orders/{orderId}/returns/{returnId}/receipt", {
        path: { orderId: order.id, returnId: row.id },
        body: { restocked: chosen(row.items, values) },
        idempotencyKey,
      }),
  };
}

/** The name of a product of the order. */
export function nameOf(order: OrderRecords, productId: number): string {
  return order.items.find((line) => line.productId === productId)?.productName ?? String(productId);
}
