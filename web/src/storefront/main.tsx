import "@shared/styles/base.css";
import "./storefront.css";
import { NoResponse } from "@shared/api/client";
import { ErrorNotice, Icon, Loading } from "@shared/components/basic";
import { LanguagePicker, Main, Messages, SkipLink, ThemePicker } from "@shared/components/frame";
import { number } from "@shared/i18n";
import { go, href, place } from "@shared/router";
import { account, resume } from "@shared/session";
import { effect } from "@preact/signals";
import { type ComponentType, type JSX, render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { loadCart, units } from "./cart";
import { Catalog } from "./catalog";
import { NotFound } from "./not-found";
import { ProductPage } from "./product";
import { text } from "./sentences";

/** A page of another file, which is loaded when it is first shown. */
function later<P extends object>(load: () => Promise<ComponentType<P>>) {
  let loaded: ComponentType<P> | undefined;
  return function Later(props: P & JSX.IntrinsicAttributes) {
    const [Page, setPage] = useState<ComponentType<P> | undefined>(() => loaded);
    const [isMissing, setMissing] = useState(false);
    useEffect(() => {
      if (Page) return;
      load().then((page) => setPage(() => (loaded = page)), () => setMissing(true));
    }, []);
    if (Page) return <Page {...props} />;
    return <Main title={text("shop")}>{isMissing ? <FileMissing /> : <Loading />}</Main>;
  };
}

/** A file of the shop did not arrive; browsers may remember that until the page is loaded again. */
function FileMissing() {
  return <ErrorNotice error={new NoResponse()} retry={() => location.reload()} />;
}

const CartPage = later(() => import("./cart-page").then((module) => module.CartPage));
const Checkout = later(() => import("./checkout").then((module) => module.Checkout));
const OrderList = later(() => import("./orders").then((module) => module.OrderList));
const OrderPage = later<{ id: string }>(() => import("./orders").then((module) => module.OrderPage));
const AccountPage = later(() => import("./account-page").then((module) => module.AccountPage));
const SignIn = later(() => import("./access").then((module) => module.SignIn));
const Register = later(() => import("./access").then((module) => module.Register));
const RequestReset = later(() => import("./access").then((module) => module.RequestReset));
const SetPassword = later<{ token: string }>(() =>
  import("./access").then((module) => module.SetPassword),
);
const VerifyEmail = later<{ token: string }>(() =>
  import("./access").then((module) => module.VerifyEmail),
);

/** The token of a link in a mail, which is only in the fragment, so no server sees it. */
const linkToken = /^#token=([\w.~-]+)$/.exec(location.hash)?.[1];

function Page() {
  if (linkToken && location.pathname === "/set-password") return <SetPassword token={linkToken} />;
  if (linkToken && location.pathname === "/verify-email") return <VerifyEmail token={linkToken} />;
  const [first, second] = place.value.segments;
  switch (first) {
    case undefined:
      return <Catalog />;
    case "products":
      return second ? <ProductPage id={second} /> : <NotFound />;
    case "cart":
      return <CartPage />;
    case "sign-in":
      return <SignIn />;
    case "register":
      return <Register />;
    case "reset":
      return <RequestReset />;
    case "checkout":
      return <ForAccount><Checkout /></ForAccount>;
    case "orders":
      return <ForAccount>{second ? <OrderPage id={second} /> : <OrderList />}</ForAccount>;
    case "account":
      return <ForAccount><AccountPage /></ForAccount>;
    default:
      return <NotFound />;
  }
}

/** A page that needs an account: signing in leads back to it. */
function ForAccount({ children }: { children: JSX.Element }) {
  const isGuest = account.value === null;
  useEffect(() => {
    if (isGuest) go(href("/sign-in", { next: place.value.path }), "replace");
  }, [isGuest]);
  return account.value ? children : <Main title={text("shop")}><Loading /></Main>;
}

function Header() {
  const home = location.pathname === "/" ? href("/") : "/";
  return (
    <header class="top">
      <div class="inside">
        <a class="brand" href={home}><Icon name="bag" />{text("shop")}</a>
        <nav class="row" aria-label={text("shop")}>
          <LanguagePicker />
          <ThemePicker />
          <a
            class="icon-button"
            href={href(account.value ? "/account" : "/sign-in")}
          >
            <span class="visually-hidden">{text(account.value ? "account" : "signIn")}</span>
            <Icon name="user" />
          </a>
          <a class="icon-button" href={href("/cart")}>
            <span class="visually-hidden">{text("cart")} ({number(units.value)})</span>
            <Icon name="bag" />
            {units.value > 0 && <span class="count" aria-hidden="true">{number(units.value)}</span>}
          </a>
        </nav>
      </div>
    </header>
  );
}

function App() {
  return (
    <>
      <SkipLink />
      <Header />
      <Page />
      <footer class="bottom"><p class="small muted">{text("shop")}</p></footer>
      <Messages />
    </>
  );
}

// a payment provider leads back to /?order=…
const paid = new URLSearchParams(location.search).get("order");
if (paid) {
  const page = href(`/orders/${encodeURIComponent(paid)}`, { returned: 1 });
  history.replaceState(null, "", `/${page}`);
}
if (paid) go(location.hash, "replace");

void resume().catch(() => undefined);
effect(() => {
  if (account.value) void loadCart().catch(() => undefined);
});
render(<App />, document.getElementById("app")!);
