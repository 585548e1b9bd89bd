// Microsoft's Entra ID, told by its addresses.

/** Its clouds: the world's, that of the US government, China's. */
export const ENTRA_HOSTS: ReadonlySet<string> = new Set(["login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn"]);

const TENANT_ID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/;

/** Id of the tenant that an issuer is of, lower case; null when it names none by its id, as `common` and domains do: tokens name theirs so. */
export function entraTenant({ pathname }: URL): string | null {
  const tenant = pathname.split("/")[1]?.toLowerCase() ?? "";
  return TENANT_ID.test(tenant) ? tenant : null;
}
