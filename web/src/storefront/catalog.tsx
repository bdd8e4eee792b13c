/** The list of products, with search, filters and order in the address. */
import { call, send } from "@shared/api/client";
import type { ListedProduct } from "@shared/api/contract";
import { Button, Empty, ErrorNotice, Icon, Skeleton } from "@shared/components/basic";
import { announce, Main } from "@shared/components/frame";
import { SelectField, TextField } from "@shared/components/form";
import { language, money } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { go, href, place } from "@shared/router";
import { say } from "@shared/sentences";
import { useState } from "preact/hooks";
import { Picture, Stock } from "./parts";
import { text } from "./sentences";

const SORTS = {
  "-id": "sortNew",
  id: "sortId",
  price: "sortPriceUp",
  "-price": "sortPriceDown",
  name: "sortName",
} as const;
const PAGE = 12;
const isWide = matchMedia("(min-width: 56rem)").matches;

export function Catalog() {
  const query = place.value.query;
  const filters = {
    name: query.get("name") ?? undefined,
    category: query.get("category") ?? undefined,
    minPrice: numberIn(query.get("minPrice")),
    maxPrice: numberIn(query.get("maxPrice")),
    sort: (query.get("sort") ?? "-id") as keyof typeof SORTS,
  };
  const key = JSON.stringify([filters, language.value]);
  const [more, setMore] = useState<{ of: string; products: ListedProduct[]; next: string | null }>();
  const first = useLoaded(
    (signal) => send("GET /products", { query: { ...filters, limit: PAGE }, signal }),
    [key],
  );
  const extra = more?.of === key ? more : undefined;
  const next = extra ? extra.next : (first.data?.next ?? null);
  const products = [...(first.data?.data ?? []), ...(extra?.products ?? [])];
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);

  const showMore = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const page = await send("GET /products", {
        query: { ...filters, limit: PAGE, cursor: next! },
      });
      setMore({ of: key, products: [...(extra?.products ?? []), ...page.data], next: page.next });
      announce(text("lines", { count: products.length + page.data.length }));
    } catch (failure) {
      setError(failure);
    } finally {
      setBusy(false);
    }
  };

  return (
    <Main title={text("shop")}>
      <section class="hero">
        <h1>{filters.category ?? text("tagline")}</h1>
      </section>
      <Categories chosen={filters.category} />
      <Filters {...filters} />
      {first.error !== undefined && <ErrorNotice error={first.error} retry={first.reload} />}
      {first.data === undefined && first.isLoading && <Placeholders />}
      {first.data && products.length === 0 && (
        <Empty icon="search" title={text("noProducts")}>
          <p>{text("noProductsHint")}</p>
          <a class="button" href={href("/")}>{text("clear")}</a>
        </Empty>
      )}
      <ul class="products" aria-busy={first.isLoading}>
        {products.map((product, index) => (
          <li key={product.id}>
            <ProductCard product={product} eager={index < 4} />
          </li>
        ))}
      </ul>
      {error !== undefined && <ErrorNotice error={error} />}
      {next !== null && products.length > 0 && (
        <p class="center">
          <Button busy={busy} onClick={() => void showMore()}>{say("more")}</Button>
        </p>
      )}
    </Main>
  );
}

function numberIn(value: string | null): number | undefined {
  return value !== null && /^\d{1,12}$/.test(value) ? Number(value) : undefined;
}

function ProductCard({ product, eager }: { product: ListedProduct; eager: boolean }) {
  return (
    <a class="product" href={href(`/products/${product.id}`)}>
      <Picture product={product} eager={eager} />
      <span class="name">{product.name}</span>
      <span class="price number">{money(product.price, product.currency)}</span>
      {product.stockQuantity <= 5 && <Stock count={product.stockQuantity} />}
    </a>
  );
}

function Placeholders() {
  return (
    <div class="products" role="status">
      <span class="visually-hidden">{say("loading")}</span>
      {Array.from({ length: 8 }, (_, index) => <Skeleton key={index} class="card-like" lines={3} />)}
    </div>
  );
}

function Categories({ chosen }: { chosen: string | undefined }) {
  const { data } = useLoaded((signal) => call("GET /categories", { signal }), [language.value]);
  if (!data?.length) return null;
  const entries = [undefined, ...data.map((category) => category.name)];
  return (
    <nav aria-label={text("categories")}>
      <ul class="chips">
        {entries.map((name) => (
          <li key={name ?? ""}>
            <a href={href("/", { category: name })} aria-current={name === chosen ? "page" : undefined}>
              {name ?? text("all")}
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}

function Filters(filters: {
  name: string | undefined;
  category: string | undefined;
  minPrice: number | undefined;
  maxPrice: number | undefined;
  sort: keyof typeof SORTS;
}) {
  const apply = (event: SubmitEvent) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget as HTMLFormElement);
    const given = Object.fromEntries([...data].map(([name, value]) => [name, String(value)]));
    go(href("/", { ...given, category: filters.category }));
  };
  const sort = (value: string) => {
    const { name, category, minPrice, maxPrice } = filters;
    go(href("/", { name, category, minPrice, maxPrice, sort: value }));
  };
  return (
    <form class="filters" onSubmit={apply} role="search" key={JSON.stringify(filters)}>
      <TextField
        label={text("search")}
        name="name"
        type="search"
        maxLength={64}
        value={filters.name ?? ""}
      />
      <button class="button" type="submit" aria-label={text("search")}><Icon name="search" /></button>
      <details open={isWide || filters.minPrice !== undefined || filters.maxPrice !== undefined}>
        <summary>{text("filters")}</summary>
        <div class="row prices">
          <TextField
            label={text("minPrice")}
            name="minPrice"
            inputMode="numeric"
            pattern="[0-9]*"
            value={filters.minPrice ?? ""}
          />
          <TextField
            label={text("maxPrice")}
            name="maxPrice"
            inputMode="numeric"
            pattern="[0-9]*"
            value={filters.maxPrice ?? ""}
          />
          <button class="button" type="submit">{text("apply")}</button>
        </div>
      </details>
      <SelectField label={text("sort")} name="sort" value={filters.sort} onInput={sort}>
        {Object.entries(SORTS).map(([value, name]) => (
          <option key={value} value={value} selected={value === filters.sort}>{text(name)}</option>
        ))}
      </SelectField>
    </form>
  );
}
