/** One product: pictures, options, stock, and the way into the cart. */
import { ApiError, call } from "@shared/api/client";
import type { Product } from "@shared/api/contract";
import { Button, ErrorNotice, Loading } from "@shared/components/basic";
import { announce, Main } from "@shared/components/frame";
import { SendingError, useSending } from "@shared/components/form";
import { language, money } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { href } from "@shared/router";
import { useState } from "preact/hooks";
import { add } from "./cart";
import { addressOf, Picture, Stepper, Stock } from "./parts";
import { NotFound } from "./not-found";
import { text } from "./sentences";

export function ProductPage({ id }: { id: string }) {
  const { data, error, reload } = useLoaded(
    (signal) => call("GET /products/{productId}", { path: { productId: id }, signal }),
    [id, language.value],
  );
  if (error instanceof ApiError && [400, 404, 422].includes(error.status)) return <NotFound />;
  return (
    <Main title={data?.name ?? text("shop")}>
      {error !== undefined && <ErrorNotice error={error} retry={reload} />}
      {data ? <Details key={data.id} product={data} /> : error === undefined && <Loading />}
    </Main>
  );
}

function Details({ product }: { product: Product }) {
  const [quantity, setQuantity] = useState(1);
  const [shown, setShown] = useState(0);
  const sending = useSending();
  const image = product.images[shown] ?? product.images[0];
  const addToCart = () =>
    sending.run(async () => {
      await add(product.id, quantity);
      announce(text("added"));
    });
  return (
    <article class="details">
      <div class="stack tight">
        <Picture product={{ name: product.name, images: image ? [image] : [] }} eager />
        {product.images.length > 1 && (
          <ul class="thumbnails">
            {product.images.map((each, index) => (
              <li key={each.url}>
                <button
                  type="button"
                  aria-label={each.alt}
                  aria-pressed={index === shown}
                  onClick={() => setShown(index)}
                >
                  <img src={addressOf(each.url)} alt="" width="64" height="64" />
                </button>
              </li>
            ))}
          </ul>
        )}
      </div>
      <div class="stack">
        <div class="stack tight">
          <p><a class="muted small" href={href("/", { category: product.category })}>{product.category}</a></p>
          <h1>{product.name}</h1>
          <p class="price big number">
            {money(product.price, product.currency)} <span class="muted small">{text("vat")}</span>
          </p>
          <p><Stock count={product.stockQuantity} /></p>
        </div>
        {product.group && <Options product={product} />}
        {product.stockQuantity > 0 && (
          <div class="row">
            <Stepper
              label={text("quantity")}
              value={quantity}
              max={Math.min(product.stockQuantity, 1000)}
              onChange={setQuantity}
            />
            <Button kind="primary" icon="bag" busy={sending.busy} onClick={() => void addToCart()}>
              {text("add")}
            </Button>
          </div>
        )}
        <SendingError sending={sending} />
        <section class="stack tight">
          <h2>{text("description")}</h2>
          <p class="prose">{product.description}</p>
        </section>
      </div>
    </article>
  );
}

/** The other members of the product's group, by each option. */
function Options({ product }: { product: Product }) {
  const group = product.group!;
  return (
    <div class="stack tight">
      {Object.keys(group.options).map((option) => {
        const values = new Set(group.members.map((member) => member.options[option]!));
        return (
          <nav key={option} aria-label={`${text("options")}: ${option}`}>
            <p class="small muted">{option}</p>
            <ul class="chips">
              {[...values].map((value) => {
                const wanted = { ...group.options, [option]: value };
                const member =
                  group.members.find((each) =>
                    Object.entries(wanted).every(([name, of]) => each.options[name] === of),
                  ) ?? group.members.find((each) => each.options[option] === value)!;
                return (
                  <li key={value}>
                    <a
                      href={href(`/products/${member.productId}`)}
                      aria-current={value === group.options[option] ? "true" : undefined}
                    >
                      {value}
                    </a>
                  </li>
                );
              })}
            </ul>
          </nav>
        );
      })}
    </div>
  );
}
