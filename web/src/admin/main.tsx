import "@shared/styles/base.css";
import { LanguagePicker, Main, Messages, SkipLink, ThemePicker } from "@shared/components/frame";
import { resume } from "@shared/session";
import { render } from "preact";

function App() {
  return (
    <>
      <SkipLink />
      <header class="row"><LanguagePicker /><ThemePicker /></header>
      <Main title="msa-shop"><h1>msa-shop</h1></Main>
      <Messages />
    </>
  );
}

void resume();
render(<App />, document.getElementById("app")!);
