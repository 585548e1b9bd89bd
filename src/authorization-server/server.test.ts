import assert from "node:assert/strict";
import test from "node:test";
import { OAuthServer } from "../../test/components/oauth-server.ts";

test("#23 the way from registration to a token that is found", async () => {
  const oauth = await OAuthServer.open();
  const clientId = await oauth.registered();
  const tokens = await oauth.tokens({ client_id: clientId });
  console.log(tokens);
  const found = await oauth.server.tokens.find(String(tokens["access_token"]));
  console.log(found);
  assert.equal(found?.kind, "identity");
  oauth.server.close();
});
