import "@shared/styles/base.css";
import "./admin.css";
import { Button, Loading, Notice } from "@shared/components/basic";
import { LanguagePicker, Main, Messages, SkipLink, ThemePicker } from "@shared/components/frame";
import { href, place } from "@shared/router";
import { account, logOut, resume } from "@shared/session";
import { type ComponentType, render } from "preact";
import { has, OPERATORS, type Role } from "./access";
import { AccountPage, Accounts } from "./accounts";
import { Alerts } from "./alerts";
import { AuditLog } from "./audit-log";
import { CouponPage, Coupons } from "./coupons";
import { CustomerPage } from "./customer";
import { DeadLetterPage, DeadLetters } from "./dead-letters";
import { LogIn } from "./log-in";
import { OrderPage } from "./order";
import { Orders } from "./orders";
import { ProductPage } from "./product";
import { ProductGroupPage, ProductGroups } from "./product-groups";
import { Products } from "./products";
import { say, type Sentence } from "./sentences";
import { Settlements } from "./settlements";
import { WebhookPage, Webhooks } from "./webhooks";

/** A list of the back office, and the page of one of its rows. */
interface Part {
  path: string;
  label: Sentence;
  roles: readonly Role[];
  list?: ComponentType;
  one?: ComponentType<{ id: string }>;
}

const PARTS: readonly Part[] = [
  { path: "orders", label: "orders", roles: OPERATORS, list: Orders, one: OrderPage },
  { path: "products", label: "products", roles: OPERATORS, list: Products, one: ProductPage },
  { path: "product-groups", label: "groups", roles: OPERATORS, list: ProductGroups, one: ProductGroupPage },
  { path: "coupons", label: "coupons", roles: OPERATORS, list: Coupons, one: CouponPage },
  { path: "settlements", label: "settlements", roles: ["finance"], list: Settlements },
  { path: "accounts", label: "userAccounts", roles: ["admin"], list: Accounts, one: AccountPage },
  { path: "webhooks", label: "webhooks", roles: ["admin"], list: Webhooks, one: WebhookPage },
  { path: "alerts", label: "alerts", roles: [...OPERATORS, "admin"], list: Alerts },
  { path: "dead-letters", label: "deadLetters", roles: ["admin"], list: DeadLetters, one: DeadLetterPage },
  { path: "audit-log", label: "auditLog", roles: ["admin"], list: AuditLog },
  { path: "customers", label: "customer", roles: ["support", "admin"], one: CustomerPage },
];

function App() {
  const shown = PARTS.filter((part) => part.list && has(...part.roles));
  const present = place.value.segments[0] ?? shown[0]?.path;
  return (
    <>
      <SkipLink />
      <header class="bar row between">
        <nav class="row" aria-label={say("title")}>
          <strong>msa-shop</strong>
          {shown.map(({ path, label }) => (
            <a key={path} href={href(`/${path}`)} aria-current={path === present ? "page" : undefined}>
              {say(label)}
            </a>
          ))}
        </nav>
        <div class="row">
          {account.value && (
            <>
              <span class="small muted">{account.value.email} · {account.value.role}</span>
              <Button kind="quiet" onClick={() => void logOut()}>{say("logOut")}</Button>
            </>
          )}
          <LanguagePicker /><ThemePicker />
        </div>
      </header>
      <Main title={`msa-shop · ${say("title")}`}><Page /></Main>
      <Messages />
    </>
  );
}

/** The page of the address; the first one of the role where it names none that the role has. */
function Page() {
  if (account.value === undefined) return <Loading />;
  if (account.value === null) return <LogIn />;
  const [path, id] = place.value.segments;
  const permitted = PARTS.filter((part) => has(...part.roles));
  const part = permitted.find((each) => each.path === path) ?? permitted[0];
  if (!part) return <Notice tone="warn" title={say("notOperator")} />;
  if (part.one && part.path === path && id) return <part.one key={id} id={id} />;
  const List = part.list ?? permitted[0]?.list;
  return List ? <List /> : null;
}

void resume();
render(<App />, document.getElementById("app")!);
