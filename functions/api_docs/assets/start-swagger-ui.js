// Starts Swagger UI on this origin's documents: the whole shop first, then one per group.
"use strict";

fetch("/api-docs/groups.json")
  .then((answer) => answer.json())
  .then(({ groups }) => {
    const whole = { url: "/v3/api-docs", name: "all" };
    const parts = groups.map((name) => ({ url: `/v3/api-docs/${name}`, name }));
    window.ui = SwaggerUIBundle({
      urls: [whole, ...parts],
      dom_id: "#swagger-ui",
      deepLinking: true,
      validatorUrl: null,
      presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
      layout: "StandaloneLayout",
    });
  });
