// Starts Swagger UI on this origin's documents: the whole shop first, then one per group.
// In the local profile it offers to log in with the seeded accounts.
"use strict";

async function read(path) {
  const response = await fetch(path);
  return response.json();
}

function startSwaggerUi(groups) {
  const whole = { url: "/v3/api-docs", name: "all" };
  const parts = groups.map((name) => ({ url: `/v3/api-docs/${name}`, name }));
  return SwaggerUIBundle({
    urls: [whole, ...parts],
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    docExpansion: "none",
    filter: true,
    operationsSorter: "alpha",
    tagsSorter: "alpha",
    defaultModelsExpandDepth: 0,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    layout: "StandaloneLayout",
  });
}

async function logIn(ui, { role, email, password }) {
  const response = await fetch("/auth/login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email, password }),
  });
  const document = await response.json();
  if (!response.ok) {
    return document.message;
  }
  // the token is kept in memory only: it ends with the page
  ui.preauthorizeApiKey("bearer", document.accessToken);
  return `logged in as ${role} (${email}) for ${Math.round(document.expiresIn / 60)} minutes`;
}

function offerLogIn(ui, accounts) {
  const section = document.querySelector("#log-in");
  const output = section.querySelector("output");
  for (const account of accounts) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = account.role;
    button.addEventListener("click", async () => {
      output.textContent = "…";
      output.textContent = await logIn(ui, account).catch(() => "the shop does not answer");
    });
    section.insertBefore(button, output);
  }
  section.hidden = accounts.length === 0;
}

async function start() {
  const [{ groups }, { accounts }] = await Promise.all([
    read("/api-docs/groups.json"),
    read("/api-docs/local-accounts.json"),
  ]);
  offerLogIn(startSwaggerUi(groups), accounts);
}

start();
