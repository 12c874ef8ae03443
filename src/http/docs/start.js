// Whole addresses, made from the page's own: behind a proxy both may have a prefix.
SwaggerUIBundle({
  url: new URL("../openapi.yaml", document.baseURI).href,
  dom_id: "#interface",
  deepLinking: true,
  // Else a public service would be asked about the document.
  validatorUrl: null,
});
