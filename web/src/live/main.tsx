import "@shared/styles/base.css";
import "./live.css";
import { Badge } from "@shared/components/basic";
import { LanguagePicker, Main, Messages, SkipLink, ThemePicker } from "@shared/components/frame";
import { render } from "preact";
import { Flow, Functions, Invariants, Switches } from "./panels";
import { DueJobs, Logs, Mails, OrderPath, Orders } from "./readings";
import { say } from "./sentences";
import { connect, isConnected } from "./stream";

function App() {
  return (
    <>
      <SkipLink />
      <header class="bar row between">
        <div class="row">
          <strong>msa-shop</strong>
          <span>{say("title")}</span>
          <Badge tone={isConnected.value ? "good" : "bad"}>
            {say(isConnected.value ? "connected" : "disconnected")}
          </Badge>
        </div>
        <div class="row"><LanguagePicker /><ThemePicker /></div>
      </header>
      <Main title={`msa-shop · ${say("title")}`}>
        <h1 class="visually-hidden">{say("title")}</h1>
        <Functions />
        <div class="columns">
          <div class="stack"><Flow /><Logs /></div>
          <div class="stack"><Orders /><OrderPath /></div>
          <div class="stack"><Invariants /><Switches /><DueJobs /><Mails /></div>
        </div>
      </Main>
      <Messages />
    </>
  );
}

connect();
render(<App />, document.getElementById("app")!);
