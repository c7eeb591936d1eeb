// An OpenID Connect issuer that gives a client tokens with a grant. Its settings are JSON on standard input: `port`,
// `keys` (private JWKs, the first of which signs) and `claim` (the name of the claim with the grant).
import { readFileSync } from "node:fs";
import { Provider } from "oidc-provider";

const { port, keys, claim } = JSON.parse(readFileSync(0, "utf8"));
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  jwks: { keys },
  clients: [
    {
      client_id: "desk",
      client_secret: "desk-secret",
      token_endpoint_auth_method: "client_secret_post",
      id_token_signed_response_alg: keys[0].alg,
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
  ],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource) => ({
        scope: "",
        audience: resource,
        accessTokenTTL: 600,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: keys[0].alg } },
      }),
    },
  },
  extraTokenClaims: () => ({ [claim]: { subjects: ["log.>"], deny: ["log.debug.>"] } }),
});
provider.listen(port, "127.0.0.1", () => console.log("ready"));
