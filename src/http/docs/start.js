"use strict";

const mapValues = (object, change) =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value)]));

// Gives each operation what its path says for all of them: of the first operation that is opened,
// Swagger UI does not look such parameters up.
const withParameters = ({ parameters: common = [], ...operations }) =>
  mapValues(operations, ({ parameters: own = [], ...rest }) => ({
    ...rest,
    parameters: [...common, ...own],
  }));

const withParametersEverywhere = ({ paths = {}, ...rest }) => ({
  ...rest,
  paths: mapValues(paths, withParameters),
});

const updateJsonSpec = (update) => (document) => update(withParametersEverywhere(document));

SwaggerUIBundle({
  // As a whole, so that the document's server, which is relative to it, has a proxy's prefix too.
  url: new URL("../openapi.yaml", document.baseURI).href,
  dom_id: "#interface",
  deepLinking: true,
  plugins: [{ statePlugins: { spec: { wrapActions: { updateJsonSpec } } } }],
  // Else a public service would be asked about the document.
  validatorUrl: null,
});
