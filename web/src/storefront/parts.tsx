/** Parts of several pages of the storefront. */
import { Badge, IconButton, type Tone } from "@shared/components/basic";
import type { Order, OrderStatus } from "@shared/api/contract";
import { money, number } from "@shared/i18n";
import { status, text } from "./sentences";

interface Pictured {
  name: string;
  images: { url: string; alt: string }[];
}

/** The first picture of a product, or its first letter. */
export function Picture({ product, eager }: { product: Pictured; eager?: boolean }) {
  const image = product.images[0];
  const address = image && addressOf(image.url);
  return (
    <div class="picture">
      {image && address ? (
        <img
          src={address}
          alt={image.alt}
          width="480"
          height="480"
          loading={eager ? "eager" : "lazy"}
          decoding="async"
        />
      ) : (
        <span aria-hidden="true">{Array.from(product.name)[0]}</span>
      )}
    </div>
  );
}

/** The address of a picture, of this shop or over HTTPS; undefined for any other. */
export function addressOf(url: string): string | undefined {
  return /^(?:https:\/\/|\/(?!\/))/.test(url) ? url : undefined;
}

export function Stock({ count }: { count: number }) {
  if (count <= 0) return <Badge tone="bad">{text("soldOut")}</Badge>;
  if (count <= 5) return <Badge tone="warn">{text("few", { count: number(count) })}</Badge>;
  return <Badge tone="good">{text("inStock")}</Badge>;
}

export function Stepper({
  value,
  max,
  label,
  onChange,
}: {
  value: number;
  max: number;
  label: string;
  onChange: (value: number) => void;
}) {
  return (
    <div class="stepper" role="group" aria-label={label}>
      <IconButton
        icon="minus"
        label={text("fewer")}
        disabled={value <= 1}
        onClick={() => onChange(value - 1)}
      />
      <output class="number">{number(value)}</output>
      <IconButton
        icon="plus"
        label={text("more")}
        disabled={value >= max}
        onClick={() => onChange(value + 1)}
      />
    </div>
  );
}

const TONES: Record<OrderStatus, Tone> = {
  PENDING: "info",
  PAID: "good",
  CANCELLING: "warn",
  CANCELLED: "neutral",
  REFUNDED: "neutral",
};

export function OrderBadge({ order }: { order: Order }) {
  return <Badge tone={TONES[order.status]}>{status(order.status)}</Badge>;
}

/** The price of an order by kind of line, and the total that the shop has computed. */
export function PriceLines({
  priceLines,
  totalAmount,
  currency,
  refundedAmount = 0,
}: Pick<Order, "priceLines" | "totalAmount" | "currency"> & { refundedAmount?: number }) {
  const sums = new Map<string, number>();
  for (const line of priceLines) {
    sums.set(line.kind, (sums.get(line.kind) ?? 0) + line.amount);
  }
  const labels = { GOODS: "goods", DISCOUNT: "discount", SHIPPING: "shipping" } as const;
  return (
    <dl class="amounts">
      {[...sums].map(([kind, amount]) => (
        <div key={kind}>
          <dt>{text(labels[kind as keyof typeof labels] ?? "goods")}</dt>
          <dd>{money(amount, currency)}</dd>
        </div>
      ))}
      <div class="sum">
        <dt>{text("total")}</dt>
        <dd>{money(totalAmount, currency)}</dd>
      </div>
      {refundedAmount > 0 && (
        <div>
          <dt>{text("refunded")}</dt>
          <dd>{money(-refundedAmount, currency)}</dd>
        </div>
      )}
    </dl>
  );
}
