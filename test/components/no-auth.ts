// What an admin interface is told of OAuth where there is none.
import type { AdminAuth } from "../../src/admin/auth.ts";

export const NO_AUTH: AdminAuth = {
  clients: () => Promise.resolve([]),
  grants: () => Promise.resolve([]),
  revoke: () => Promise.reject(new Error("Nobody should revoke anything")),
};
