// Certificate authorities for the tests, made by openssl: certificates with any subject, alternative names, purposes and life.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export type Pair = { readonly cert: string; readonly key: string };

export type TestCa = {
  /** PEM of the CA itself. */
  readonly cert: string;
  /**
   * @param subject as for `openssl req -subj`: /O=Acme/CN=trader
   * @param options.san as in openssl's configuration: DNS:a.example,URI:spiffe://a/b
   * @param options.usage extendedKeyUsage; default: none, which is any.
   */
  issue(subject: string, options?: { san?: string; usage?: string; notBefore?: Date; notAfter?: Date }): Pair;
};

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
const DAY_MS = 86_400_000;

export function createTestCa(name = "Test CA"): TestCa {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-pki-"));
  process.once("exit", () => rmSync(dir, { recursive: true, force: true }));
  const file = (of: string): string => join(dir, of);
  const text = (of: string): string => readFileSync(file(of), "utf8");
  const openssl = (...args: string[]): unknown => execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"] });
  openssl(
    "req",
    "-x509",
    ...NEW_KEY,
    "-days",
    "30",
    "-subj",
    `/CN=${name}`,
    "-addext",
    "keyUsage=critical,keyCertSign,cRLSign",
    "-keyout",
    file("ca.key"),
    "-out",
    file("ca.crt"),
  );
  return {
    cert: text("ca.crt"),
    issue: (subject, { san, usage, notBefore = new Date(Date.now() - DAY_MS), notAfter = new Date(Date.now() + DAY_MS) } = {}) => {
      const extensions = [
        "basicConstraints=CA:FALSE",
        ...(san === undefined ? [] : [`subjectAltName=${san}`]),
        ...(usage === undefined ? [] : [`extendedKeyUsage=${usage}`]),
      ];
      writeFileSync(
        file("ca.cnf"),
        `[ca]\ndefault_ca=d\n[d]\ndatabase=${file("index")}\nnew_certs_dir=${dir}\nrand_serial=yes\nunique_subject=no\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n` +
          `[p]\ncommonName=optional\norganizationName=optional\norganizationalUnitName=optional\n[e]\n${extensions.join("\n")}\n[req]\nutf8=yes\ndistinguished_name=n\n[n]\n`,
      );
      writeFileSync(file("index"), "");
      openssl("req", ...NEW_KEY, "-utf8", "-config", file("ca.cnf"), "-subj", subject, "-keyout", file("key"), "-out", file("csr"));
      const dates = ["-startdate", stamp(notBefore), "-enddate", stamp(notAfter)];
      openssl(
        "ca",
        "-batch",
        "-notext",
        "-utf8",
        "-preserveDN",
        "-config",
        file("ca.cnf"),
        "-cert",
        file("ca.crt"),
        "-keyfile",
        file("ca.key"),
        ...dates,
        "-in",
        file("csr"),
        "-out",
        file("crt"),
      );
      return { cert: text("crt"), key: text("key") };
    },
  };
}

/** 20260131235959Z. */
function stamp(date: Date): string {
  return `${date.toISOString().slice(0, 19).replaceAll(/[-:T]/g, "")}Z`;
}

/** The certificate (PEM) with an end that is no date, as a CA with a mistake may issue it; its signature does not hold any more. */
export function withoutEnd(cert: string): string {
  const der = Buffer.from(cert.replaceAll(/-----[A-Z ]+-----|\s/g, ""), "base64");
  // UTCTime, 13 bytes long: the first one is the beginning.
  const end = der.indexOf("170d", der.indexOf("170d", 0, "hex") + 1, "hex");
  der.write("000000000000Z", end + 2, "latin1");
  return `-----BEGIN CERTIFICATE-----\n${der.toString("base64")}\n-----END CERTIFICATE-----\n`;
}
