import "@shared/styles/base.css";
import "./admin.css";
import { Button, Loading, Notice } from "@shared/components/basic";
import { LanguagePicker, Main, Messages, SkipLink, ThemePicker } from "@shared/components/frame";
import { href, place } from "@shared/router";
import { account, logOut, resume } from "@shared/session";
import { render } from "preact";
import { isOperator } from "./access";
import { LogIn } from "./log-in";
import { OrderPage } from "./order";
import { Orders } from "./orders";
import { say } from "./sentences";

function App() {
  return (
    <>
      <SkipLink />
      <header class="bar row between">
        <nav class="row" aria-label={say("title")}>
          <strong>msa-shop</strong>
          {isOperator() && <a href={href("/")}>{say("orders")}</a>}
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

function Page() {
  if (account.value === undefined) return <Loading />;
  if (account.value === null) return <LogIn />;
  if (!isOperator()) return <Notice tone="warn" title={say("notOperator")} />;
  const [first, id] = place.value.segments;
  return first === "orders" && id ? <OrderPage key={id} id={id} /> : <Orders />;
}

void resume();
render(<App />, document.getElementById("app")!);
