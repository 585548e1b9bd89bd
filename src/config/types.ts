// The configuration in its resolved form. GENERATED from schema/config.schema.json by `npm run generate`: do not edit.

/**
 * One line for each request and each TCP connection: 'stdout', 'off', or files in a directory. Default: stdout.
 */
export type AccessLog = ("stdout" | "off") | AccessLogFiles;
/**
 * How TXT records for dns-01 are set: by Cloudflare's API, or by a program of yours.
 */
export type AcmeDns = CloudflareDns | ExecDns;
/**
 * A name, or the names of one certificate.
 */
export type AcmeDomain = string | string[];
/**
 * A URL, or an object with targets and settings.
 */
export type UpstreamEntry = UpstreamUrl | Upstream;
/**
 * URL of a target: http://host:port, https://host:port, h2c://host:port, unix:/path (HTTP), or tcp://host:port for TCP listeners. No path.
 */
export type UpstreamUrl = string;
/**
 * An HTTP listener (its requests go through 'routes') or a TCP listener (its connections go to one upstream).
 */
export type Listener = HttpListener | TcpListener;
/**
 * Who may connect: client addresses or networks (behind trusted_proxies the address that they tell), or people and devices of the tailnet. On an HTTP listener everybody may without it; a TCP listener that others reach needs it, but for 'tailnet:' ones.
 */
export type Allow = string[] | AllowTailnet;
/**
 * Client addresses or networks that may not connect, stronger than 'allow'.
 */
export type Deny = string[];
/**
 * Health check of the upstream: 'tcp' connects, 'ib_api' asks for the handshake of the Interactive Brokers API, 'ib_session' opens a session; or an object with settings. Default: tcp.
 */
export type TcpHealthEntry = TcpHealthCheck | TcpHealth;
/**
 * The kind of check.
 */
export type TcpHealthCheck = "tcp" | "ib_api" | "ib_session";
/**
 * Who may come in: a list of ways, any of which admits, or the word 'none' for everybody.
 */
export type RouteAuth = "none" | AuthWay[];

/**
 * The configuration of Sidegate: one YAML file, watched while the gateway runs.
 */
export interface Config {
  /**
   * Version of this language. Always 1.
   */
  version: 1;
  log: Log;
  access_log: AccessLog;
  state: State;
  admin: Admin;
  /**
   * Duration that requests and connections get to end by themselves when their listener is removed or the gateway stops. 0s cuts them at once. Keep it below the grace period of your container engine (10s in Docker).
   */
  drain_timeout: string;
  /**
   * Addresses or networks whose X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Real-IP, Forwarded and X-Request-Id are believed. From anybody else they are replaced.
   */
  trusted_proxies: string[];
  tls?: Tls;
  alerts?: Alerts;
  tailscale?: Tailscale;
  /**
   * Upstreams by name, for those that need more than a URL.
   */
  upstreams: {
    [k: string]: UpstreamEntry;
  };
  auth: Auth;
  /**
   * Listeners by name: the addresses on which the gateway serves.
   */
  listeners: {
    [k: string]: Listener;
  };
  /**
   * Which requests of the HTTP listeners go where, and who may make them. Higher priority first, then the more specific host, then the longer path.
   */
  routes: Route[];
}
/**
 * The gateway's own log, on standard error.
 */
export interface Log {
  /**
   * Least severe level that is written. The environment variable SIDEGATE_LOG_LEVEL is taken where the file is silent; info without either.
   */
  level?: "trace" | "debug" | "info" | "warn" | "error";
  /**
   * 'json' writes one JSON object a line, 'pretty' a readable line, 'auto' the readable one on a terminal.
   */
  format: "auto" | "json" | "pretty";
}
/**
 * Access log files, one a listener, named after it: <dir>/<listener>.log.
 */
export interface AccessLogFiles {
  /**
   * Directory of the files; made when it is missing.
   */
  dir: string;
  /**
   * Age after which a rotated file is deleted. 0s keeps them for ever.
   */
  retention: string;
  /**
   * Size at which a file is rotated.
   */
  max_size: string;
}
/**
 * Where the gateway keeps what outlives a restart.
 */
export interface State {
  /**
   * Directory of the state (ACME account and certificates, session ticket keys, the local CA, OAuth clients, grants and sessions); made when it is missing. Several gateways on one machine may share it.
   */
  dir: string;
}
/**
 * The local admin interface: /health, /ready, /metrics, /status, /reload.
 */
export interface Admin {
  /**
   * Loopback address and port, or unix:/path.
   */
  listen: string;
}
/**
 * TLS of a listener. For a server name the first source that has a certificate wins: cert_file and certificates, then acme, then tailscale, then internal.
 */
export interface Tls {
  /**
   * 'application' ends TLS here. 'disabled' is plain HTTP or TCP. 'behind_proxy' is plain HTTP from trusted_proxies alone; others get 403. 'auto' decides on each connection by its first byte: TLS ends here, plain HTTP is served when a trusted proxy says that its client used https, and redirected to https otherwise.
   */
  mode: "disabled" | "application" | "behind_proxy" | "auto";
  /**
   * PEM file with the certificate and its chain, leaf first. It is also the one for unknown server names.
   */
  cert_file?: string;
  /**
   * PEM file with the private key of cert_file.
   */
  key_file?: string;
  /**
   * Further certificates, chosen by server name.
   */
  certificates?: CertificateFiles[];
  acme?: Acme;
  /**
   * Use the certificate that tailscaled gets for the node's own name (ib-gateway.tail1234.ts.net). HTTPS must be switched on in the tailnet's settings.
   */
  tailscale: boolean;
  /**
   * Issue certificates from a local CA, kept in state.dir. For development.
   */
  internal: boolean;
  /**
   * PEM file with the CAs that sign client certificates. Needs 'client_auth'.
   */
  ca_file?: string;
  /**
   * 'require' ends the handshake of clients without a certificate of ca_file; 'request' lets them in without an identity. Default: clients are not asked for a certificate.
   */
  client_auth?: "request" | "require";
  /**
   * Oldest TLS version that is spoken.
   */
  min_tls_version: "1.2" | "1.3";
  /**
   * Cipher suites by their IANA or OpenSSL names, in order of preference. Those of TLS 1.3 are all on unless some of them are named. Default: all with forward secrecy and authenticated encryption.
   */
  cipher_suites?: string[];
  /**
   * Send Strict-Transport-Security with every answer over https.
   */
  hsts_enabled: boolean;
  /**
   * How long browsers insist on https, in seconds.
   */
  hsts_max_age: number;
  /**
   * Subdomains too.
   */
  hsts_include_subdomains: boolean;
  /**
   * Ask to be put on the browsers' preload list. Needs hsts_include_subdomains and a hsts_max_age of at least a year.
   */
  hsts_preload: boolean;
  /**
   * Send X-Content-Type-Options: nosniff, X-Frame-Options: DENY and Referrer-Policy: no-referrer where the upstream does not set them.
   */
  security_headers: boolean;
}
/**
 * A certificate and its key.
 */
export interface CertificateFiles {
  /**
   * PEM file with the certificate and its chain, leaf first.
   */
  cert_file: string;
  /**
   * PEM file with the private key.
   */
  key_file: string;
}
/**
 * Certificates from an ACME CA (RFC 8555) for every host by which clients come and that no file covers ('host', 'public_url', auth.server): ordered before the first client asks, renewed for ever, kept in state.dir. Using it means agreeing to the CA's terms of service.
 */
export interface Acme {
  /**
   * Address that the CA may write to. Default: none.
   */
  email?: string;
  /**
   * 'letsencrypt', 'letsencrypt_staging' (untrusted certificates, for trying things out), or the https URL of a CA's directory.
   */
  directory: string;
  /**
   * PEM file with the CA that signed the certificate of the directory itself. Default: the system's CAs.
   */
  ca_file?: string;
  /**
   * How to prove that a name is ours. Default: dns-01 with 'dns', otherwise tls-alpn-01 on the https_port or http-01 on the http_port, whichever a listener serves; when one fails, the other is tried.
   */
  challenge?: "http-01" | "tls-alpn-01" | "dns-01";
  dns?: AcmeDns;
  /**
   * Further names, each a certificate of its own, or lists of names that share one. Default: none; each host by which clients come has a certificate anyway.
   */
  domains?: AcmeDomain[];
  eab?: AcmeEab;
  /**
   * Port on which a listener of this file gets what the CA sends to port 80; another one behind a port mapping such as 80:8080.
   */
  http_port: number;
  /**
   * Port on which a listener of this file gets what the CA sends to port 443.
   */
  https_port: number;
}
/**
 * Cloudflare's API.
 */
export interface CloudflareDns {
  /**
   * The provider.
   */
  provider: "cloudflare";
  /**
   * API token with the permissions Zone.Zone:Read and Zone.DNS:Edit.
   */
  api_token?: string;
  /**
   * File that holds the value of 'api_token'.
   */
  api_token_file?: string;
  /**
   * Base URL of the API.
   */
  api_url: string;
  /**
   * DNS servers, as 1.1.1.1 or 127.0.0.1:5353, that are asked for the zone and its authoritative servers. Default: the system's.
   */
  resolvers?: string[];
  /**
   * Time within which the record must show on the zone's authoritative servers.
   */
  propagation_timeout: string;
}
/**
 * A program that sets and removes the records.
 */
export interface ExecDns {
  /**
   * The provider.
   */
  provider: "exec";
  /**
   * Program and its first arguments. It is called with 'present' or 'cleanup', the record's full name and its value added; exit code 0 is success.
   */
  command: string[];
  /**
   * Time within which the program must end.
   */
  timeout: string;
  /**
   * DNS servers, as 1.1.1.1 or 127.0.0.1:5353, that are asked for the zone and its authoritative servers. Default: the system's.
   */
  resolvers?: string[];
  /**
   * Time within which the record must show on the zone's authoritative servers.
   */
  propagation_timeout: string;
}
/**
 * External account binding, which some CAs ask for.
 */
export interface AcmeEab {
  /**
   * Key identifier that the CA gave.
   */
  kid: string;
  /**
   * HMAC key that the CA gave, base64url.
   */
  hmac_key?: string;
  /**
   * File that holds the value of 'hmac_key'.
   */
  hmac_key_file?: string;
}
/**
 * Where certificates that are about to expire and renewals that fail are told.
 */
export interface Alerts {
  webhook: Webhook;
}
/**
 * An address that gets each alert as a POST of JSON, signed as in the Standard Webhooks specification when there is a secret, and retried for a day. Its 'text' is what Slack, Mattermost and others show.
 */
export interface Webhook {
  /**
   * Address, http or https.
   */
  url?: string;
  /**
   * File that holds the value of 'url'.
   */
  url_file?: string;
  /**
   * Key of the signature (HMAC-SHA256): any text, or whsec_ and base64.
   */
  secret?: string;
  /**
   * File that holds the value of 'secret'.
   */
  secret_file?: string;
}
/**
 * The tailnet that 'tailnet:' listeners are on: Sidegate runs tailscaled and joins, or uses one that is there already. What is left away here is taken from the environment: TS_AUTHKEY, TS_HOSTNAME, TS_STATE_DIR, TS_EXTRA_ARGS, TS_SOCKET, and the older TAILSCALE_AUTHKEY, TAILSCALE_HOSTNAME, TAILSCALE_TAGS, TAILSCALE_EXTRA_ARGS.
 */
export interface Tailscale {
  /**
   * Name of the node in the tailnet: ib-gateway. Default: the host name of the machine or container.
   */
  hostname?: string;
  /**
   * Auth key (tskey-auth-...), OAuth client secret (tskey-client-..., which needs 'tags') or key of headscale. Used only when the state holds no login. Default: none, and the URL of a login is shown.
   */
  auth_key?: string;
  /**
   * File that holds the value of 'auth_key'.
   */
  auth_key_file?: string;
  /**
   * Tags that the node asks for: tag:trading. A tagged node belongs to no user, and its key does not expire.
   */
  tags: string[];
  /**
   * URL of the control server, for headscale: https://headscale.example.com. Default: Tailscale's.
   */
  control_url?: string;
  /**
   * Further flags of 'tailscale up', one an entry; those with a key of their own are not among them: --accept-routes, --advertise-routes=10.0.0.0/24, --advertise-exit-node, --exit-node=IP, --exit-node-allow-lan-access, --snat-subnet-routes=false, --stateful-filtering, --advertise-connector, --report-posture, --operator=USER.
   */
  extra_args: string[];
  /**
   * Take the DNS settings of the tailnet on this machine.
   */
  accept_dns: boolean;
  /**
   * Log out when the gateway stops: the node is then gone from the tailnet, and the next start needs an auth key again.
   */
  ephemeral: boolean;
  /**
   * How long joining may take before it is called a failure; it is tried on after that.
   */
  timeout: string;
  /**
   * Refuse every TCP port of the node that no listener opens; otherwise the tailnet reaches whatever else listens on this machine's localhost. Default: true, but false with 'tun' and with 'socket'.
   */
  seal?: boolean;
  /**
   * Use a kernel interface instead of userspace networking: listeners are on the node's own address, and what listens on localhost alone stays closed. Needs /dev/net/tun, NET_ADMIN and root.
   */
  tun: boolean;
  /**
   * Socket of a tailscaled that runs already and is logged in by somebody else, such as /var/run/tailscale/tailscaled.sock. Its settings are never changed.
   */
  socket?: string;
  /**
   * Directory of tailscaled's state, which holds the node's identity. Default: 'tailscale' in state.dir.
   */
  state_dir?: string;
}
/**
 * One or more targets that serve the same thing.
 */
export interface Upstream {
  /**
   * URLs of the targets, all of one scheme; each next request or connection goes to the healthy one with the fewest under way.
   */
  targets: UpstreamUrl[];
  /**
   * Allow targets that are neither loopback, a unix socket nor a single-label host name.
   */
  remote: boolean;
  /**
   * PEM file with the CA that signed the certificates of https targets. Default: the system's CAs.
   */
  ca_file?: string;
  /**
   * Name that https targets are asked for (SNI) and that their certificates must have. Default: the host of the URL.
   */
  server_name?: string;
  /**
   * PEM file with the client certificate and its chain that is shown to https targets.
   */
  cert_file?: string;
  /**
   * PEM file with the private key of cert_file.
   */
  key_file?: string;
  /**
   * Take any certificate of https targets: whoever is in between can read and change everything. Prefer ca_file.
   */
  insecure_skip_verify: boolean;
  /**
   * Value of the Authorization header sent to the upstream. The client's own never reaches it.
   */
  authorization?: string;
  /**
   * File that holds the value of 'authorization'.
   */
  authorization_file?: string;
  /**
   * Most connections to each HTTP/1.1 target; further requests wait. 0 means no limit.
   */
  max_connections: number;
  health?: HttpHealth;
  ejection: Ejection;
  timeouts: UpstreamTimeouts;
}
/**
 * Active check of each HTTP target: a GET that must be answered with a 2xx status.
 */
export interface HttpHealth {
  /**
   * Path that is asked for.
   */
  path: string;
  /**
   * Time between two checks.
   */
  interval: string;
  /**
   * Time within which the answer must come.
   */
  timeout: string;
  /**
   * Failed checks in a row that make a target unhealthy. One success makes it healthy again.
   */
  failures: number;
}
/**
 * Passive check: a target to which connections fail is left out for a while. With a single target nothing is ejected.
 */
export interface Ejection {
  /**
   * Failed connections in a row after which a target is left out.
   */
  failures: number;
  /**
   * How long it is left out.
   */
  duration: string;
}
/**
 * Time limits towards an upstream.
 */
export interface UpstreamTimeouts {
  /**
   * TCP connect and TLS handshake.
   */
  connect: string;
  /**
   * From the end of the request to the response headers. 0s means no limit.
   */
  response_headers: string;
  /**
   * Between two pieces of the response body. 0s means no limit, as silent event streams need.
   */
  read: string;
  /**
   * How long the upstream may take no byte of a request body that waits for it. 0s means no limit.
   */
  write: string;
  /**
   * How long an upgraded connection (WebSocket) may be silent both ways. 0s means no limit.
   */
  idle: string;
  /**
   * How long an unused connection is kept for the next request; a shorter Keep-Alive hint of the upstream is respected.
   */
  keep_alive: string;
}
/**
 * Who may be let in, and how they show who they are: what the ways in of routes refer to.
 */
export interface Auth {
  /**
   * Bearer tokens. 'sidegate token new' makes one and prints its line.
   */
  tokens: Token[];
  /**
   * What scopes mean, by name. A scope that nothing is to be said of needs no entry.
   */
  scopes: {
    [k: string]: Scope;
  };
  /**
   * Issuers of tokens outside of the gateway, by a name of your choice: identity providers whose JWTs or opaque tokens admit.
   */
  issuers: {
    [k: string]: Issuer;
  };
  login: Login;
  /**
   * OAuth clients that are known beforehand: machines, and applications that cannot register themselves.
   */
  clients: Client[];
  server?: AuthServer;
}
/**
 * A bearer token, known by its hash.
 */
export interface Token {
  /**
   * Name of the holder, for routes and logs.
   */
  name: string;
  /**
   * SHA-256 of the token, 64 hexadecimal digits.
   */
  sha256?: string;
  /**
   * File that holds the value of 'sha256'.
   */
  sha256_file?: string;
  /**
   * Scopes that the token grants.
   */
  scopes: string[];
}
/**
 * What a scope means.
 */
export interface Scope {
  /**
   * Words for the consent page: what the scope lets a client do.
   */
  description?: string;
  /**
   * Scopes that this one includes: who has it has them, too.
   */
  includes?: string[];
  allow?: AllowPeople;
}
/**
 * People and clients, by what the login says of them. One match is enough.
 */
export interface AllowPeople {
  /**
   * GitHub login names; "*" for anybody who has a GitHub account.
   */
  github_users?: string[];
  /**
   * GitHub organisations, of which anybody is a member.
   */
  github_orgs?: string[];
  /**
   * GitHub teams: acme/ops.
   */
  github_teams?: string[];
  /**
   * Names of the password file; subjects ('sub') of the issuer or the OpenID provider.
   */
  users?: string[];
  /**
   * E-mail addresses that the provider has verified.
   */
  emails?: string[];
  /**
   * Domains of verified e-mail addresses: example.com. Of Google accounts that is the domain of the organisation.
   */
  domains?: string[];
  /**
   * Groups in the provider's claim of groups, or of the password file.
   */
  groups?: string[];
  /**
   * Claims with the values that admit, any of which is enough; a dot leads into an object: realm_access.roles.
   */
  claims?: {
    [k: string]: string[];
  };
  tailnet?: TailnetMatch;
  /**
   * Ids of entries of auth.clients, for tokens that a machine gets for itself (client credentials).
   */
  clients?: string[];
}
/**
 * People and devices of the tailnet. One match is enough; with none of the keys every node is meant.
 */
export interface TailnetMatch {
  /**
   * Login names of people: alice@example.com. A tagged node is nobody's, whoever set it up.
   */
  users?: string[];
  /**
   * Tags of nodes, any of which admits: tag:bots.
   */
  tags?: string[];
  /**
   * Names of nodes: laptop, or laptop.tail1234.ts.net for one that is shared from another tailnet.
   */
  nodes?: string[];
}
/**
 * An issuer of tokens outside of the gateway.
 */
export interface Issuer {
  /**
   * Its identifier, byte for byte as in the tokens' 'iss'. Its metadata is looked up below it.
   */
  issuer: string;
  /**
   * Audience that its tokens must have, or a list of which one is enough: a token that was meant for another service opens nothing here. Routes with 'issuer' need it, 'identity_assertions' do not.
   */
  audience?: string | string[];
  /**
   * Where its keys are. Default: what its metadata says.
   */
  jwks_url?: string;
  /**
   * Algorithms of signatures that are accepted.
   */
  algorithms: ("RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" | "ES256" | "ES384" | "ES512" | "Ed25519" | "EdDSA")[];
  /**
   * Values of the header 'typ' that are accepted; "none" for tokens without one.
   */
  types: string[];
  /**
   * How far its clock may be from ours.
   */
  clock_tolerance: string;
  /**
   * Claim that names the user, in logs and headers.
   */
  user_claim: string;
  /**
   * Claim that holds the groups; a dot leads into an object.
   */
  groups_claim: string;
  /**
   * Claim that holds the scopes: a list, or a text with spaces. Default: scope, else scp.
   */
  scopes_claim?: string;
  /**
   * Scopes that people have here because of what else the token says, beside those in it.
   */
  grants: ScopeGrant[];
  introspection?: Introspection;
  /**
   * CAs that vouch for the issuer. Default: the system's.
   */
  ca_file?: string;
}
/**
 * Scopes for whom the conditions meet.
 */
export interface ScopeGrant {
  /**
   * Scopes that are added.
   */
  scopes: string[];
  allow: AllowPeople;
}
/**
 * How opaque tokens are asked about (RFC 7662).
 */
export interface Introspection {
  /**
   * Endpoint. Default: what the issuer's metadata says.
   */
  url?: string;
  /**
   * As whom the gateway asks.
   */
  client_id: string;
  /**
   * Secret of that client.
   */
  client_secret?: string;
  /**
   * File that holds the value of 'client_secret'.
   */
  client_secret_file?: string;
  /**
   * How long an answer counts: a token that is revoked works that long. 0s: each request asks.
   */
  cache: string;
}
/**
 * How people show who they are, before they let a client in. Where there are several, the page lets them choose.
 */
export interface Login {
  github?: GithubLogin;
  oidc?: OidcLogin;
  password?: PasswordLogin;
  /**
   * People on the tailnet are known by their connection: no login page for them.
   */
  tailnet: boolean;
}
/**
 * Login with GitHub. Register an OAuth app whose callback URL is the server's address with /callback.
 */
export interface GithubLogin {
  /**
   * Client id of the OAuth app.
   */
  client_id: string;
  /**
   * Client secret of the OAuth app.
   */
  client_secret?: string;
  /**
   * File that holds the value of 'client_secret'.
   */
  client_secret_file?: string;
  /**
   * Address of GitHub Enterprise Server.
   */
  base_url: string;
  /**
   * CAs that vouch for it. Default: the system's.
   */
  ca_file?: string;
}
/**
 * Login with an OpenID provider: Google, Entra, Okta, Keycloak or any other. Its redirect URI is the server's address with /callback.
 */
export interface OidcLogin {
  /**
   * The provider's issuer: https://accounts.google.com, https://login.microsoftonline.com/TENANT/v2.0, https://example.okta.com, https://keycloak.example.com/realms/REALM.
   */
  issuer: string;
  /**
   * Client id.
   */
  client_id: string;
  /**
   * Client secret. Without it the client is a public one.
   */
  client_secret?: string;
  /**
   * File that holds the value of 'client_secret'.
   */
  client_secret_file?: string;
  /**
   * What the button on the page says after 'Continue with'. Default: the provider's host.
   */
  name?: string;
  /**
   * Scopes to ask for.
   */
  scopes: string[];
  /**
   * Claim that holds the groups; a dot leads into an object: realm_access.roles.
   */
  groups_claim: string;
  /**
   * CAs that vouch for the provider. Default: the system's.
   */
  ca_file?: string;
}
/**
 * Login with a name and a password.
 */
export interface PasswordLogin {
  /**
   * File with lines of NAME:HASH, or of NAME:HASH:GROUP,GROUP; 'sidegate hash-password' prints the hash.
   */
  users_file: string;
}
/**
 * An OAuth client. With a secret or keys it is a machine or a server, without them a public one.
 */
export interface Client {
  /**
   * Its client_id.
   */
  id: string;
  /**
   * Name for people. Default: the id.
   */
  name?: string;
  /**
   * Its secret, at least 32 characters.
   */
  secret?: string;
  /**
   * File that holds the value of 'secret'.
   */
  secret_file?: string;
  /**
   * File with its public keys (JWKS), for private_key_jwt, in place of a secret.
   */
  jwks_file?: string;
  /**
   * Scopes that it may get for itself (client credentials).
   */
  scopes: string[];
  /**
   * Where people are sent back to; none for a machine that acts for itself.
   */
  redirect_uris: string[];
}
/**
 * The authorization server that routes with 'oauth' and 'session' share. Without it each has one on its own host.
 */
export interface AuthServer {
  /**
   * Host name of the server: https://HOST is its issuer.
   */
  host?: string;
  /**
   * Its address where that is not https://HOST: https://auth.example.com:8443.
   */
  public_url?: string;
}
/**
 * Serves HTTP/1.1, and HTTP/2 over TLS.
 */
export interface HttpListener {
  /**
   * The protocol of the listener.
   */
  protocol: "http";
  /**
   * Address: ":8443" (all interfaces), 127.0.0.1:8080, "[::1]:8080", unix:/path, or tailnet:PORT (the tailnet alone).
   */
  listen: string;
  tls?: Tls;
  allow?: Allow;
  deny?: Deny;
  /**
   * Accept credentials over plain HTTP on an address that others reach.
   */
  insecure: boolean;
  /**
   * Most bytes of request line and headers; more is answered with 431. 1KiB to 64KiB.
   */
  max_header_size: string;
  /**
   * Most connections at once; further ones are closed. 0 means no limit.
   */
  max_connections: number;
  timeouts: HttpListenerTimeouts;
  access_log?: AccessLog;
  /**
   * Answer plain HTTP with a redirect (308) to https. ACME challenges are answered first. Behind a trusted proxy its X-Forwarded-Proto says what the client used.
   */
  redirect_to_https: boolean;
}
/**
 * Whom of the tailnet a 'tailnet:' listener admits.
 */
export interface AllowTailnet {
  tailnet: TailnetMatch;
}
/**
 * Time limits towards clients.
 */
export interface HttpListenerTimeouts {
  /**
   * TLS handshake.
   */
  handshake: string;
  /**
   * From the first byte of a request to the end of its headers; then 408.
   */
  headers: string;
  /**
   * Between two pieces of a request body while the gateway waits for them; then 408. 0s means no limit.
   */
  read: string;
  /**
   * How long a client may take no byte of a response that waits for it; then the connection is closed. 0s means no limit.
   */
  write: string;
  /**
   * How long a kept-alive connection waits for the next request.
   */
  idle: string;
}
/**
 * Relays TCP connections to one upstream.
 */
export interface TcpListener {
  /**
   * The protocol of the listener.
   */
  protocol: "tcp";
  /**
   * Address: ":4003" (all interfaces), 127.0.0.1:4003, "[::1]:4003", unix:/path, or tailnet:PORT (the tailnet alone).
   */
  listen: string;
  /**
   * host:port, unix:/path, or the name of an entry of 'upstreams' with tcp:// or unix: targets.
   */
  upstream: string;
  /**
   * Allow an upstream that is neither loopback, a unix socket nor a single-label host name.
   */
  remote: boolean;
  tls?: Tls;
  allow?: Allow;
  deny?: Deny;
  /**
   * 'ib_api' closes connections whose first bytes are not those of the Interactive Brokers API, before they reach the upstream, and logs the client id.
   */
  expect?: "ib_api";
  health: TcpHealthEntry;
  /**
   * Most connections at once. 0 means no limit.
   */
  max_connections: number;
  /**
   * Most connections at once from one client address. 0 means no limit.
   */
  max_connections_per_client: number;
  connection_rate?: Rate;
  /**
   * Silence after which TCP keepalive probes begin, on both sides. 0s switches them off.
   */
  keep_alive: string;
  timeouts: TcpTimeouts;
  access_log?: AccessLog;
}
/**
 * Health check of a TCP upstream.
 */
export interface TcpHealth {
  check: TcpHealthCheck;
  /**
   * Time between two checks.
   */
  interval: string;
  /**
   * Time within which a check must succeed.
   */
  timeout: string;
  /**
   * Failed checks in a row that make the upstream unhealthy. One success makes it healthy again.
   */
  failures: number;
  /**
   * Client id that 'ib_session' takes; nobody else may use it. Needed with ib_session, refused without.
   */
  client_id?: number;
  /**
   * Daily restart window, as "23:45-00:15 America/New_York": failures in it make the upstream degraded, not unhealthy.
   */
  maintenance?: string;
}
/**
 * New connections a client address may make.
 */
export interface Rate {
  /**
   * Number of connections.
   */
  connections: number;
  /**
   * In this time.
   */
  per: string;
}
/**
 * Time limits of a TCP listener.
 */
export interface TcpTimeouts {
  /**
   * Connecting to the upstream; then the client is closed.
   */
  connect: string;
  /**
   * Silence both ways after which a connection is closed. 0s means no limit.
   */
  idle: string;
  /**
   * Time within which the first bytes that 'expect' asks for must come, and the TLS handshake must end.
   */
  expect: string;
}
/**
 * Which requests, who may make them, and where they go.
 */
export interface Route {
  /**
   * Name for logs and metrics. Default: made of host and path.
   */
  name?: string;
  /**
   * HTTP listeners that serve the route. Default: all of them.
   */
  listeners?: string[];
  /**
   * Host name without port: exact, or *.example.com for one or more labels before it. Default: any.
   */
  host?: string;
  /**
   * Exact path.
   */
  path?: string;
  /**
   * Path and everything below it: /api matches /api and /api/x, not /apix.
   */
  path_prefix?: string;
  /**
   * Regular expression (RE2 syntax, linear time) that must match somewhere in the path; anchor it with ^ and $.
   */
  path_regex?: string;
  /**
   * Methods, in capitals. Default: all but CONNECT and TRACE. GET does not include HEAD.
   */
  methods?: string[];
  /**
   * Request headers that must be there: a name and its exact value, or "*" for any value.
   */
  headers?: {
    [k: string]: string;
  };
  /**
   * Higher comes first.
   */
  priority: number;
  /**
   * URL of the upstream, or the name of an entry of 'upstreams'; 'none' for a route that another proxy alone asks about at /verify.
   */
  upstream: string;
  auth: RouteAuth;
  /**
   * Address at which clients reach the route, where that is not https:// with its host and path: behind a proxy that changes paths, or on another port. Tokens are for this address.
   */
  public_url?: string;
  mcp?: Mcp;
  /**
   * Beginning of the path that is taken off before the request goes on; '/' remains when nothing does.
   */
  strip_prefix?: string;
  set_headers: SetHeaders;
  /**
   * Request headers taken off on the way to the upstream.
   */
  remove_headers: string[];
  response_headers: ResponseHeaders;
  /**
   * Tell the upstream who calls: X-Forwarded-User (the identity's name), X-Forwarded-User-Source (who knows it: token, client_certificate, tailnet, github, oidc, password, client, or issuer:NAME), X-Forwarded-User-Node (the device, for tailnet), X-Forwarded-Email and X-Forwarded-Groups (where they are known) and X-Forwarded-Scopes (scopes, with spaces between). From clients these headers never pass.
   */
  identity_headers: boolean;
  cors?: Cors;
}
/**
 * One way in: exactly one of the keys.
 */
export interface AuthWay {
  token?: TokenWay;
  client_certificate?: ClientCertificateWay;
  tailnet?: TailnetMatch;
  oauth?: OAuthWay;
  issuer?: IssuerWay;
  session?: SessionWay;
}
/**
 * A bearer token of auth.tokens, in the Authorization header.
 */
export interface TokenWay {
  /**
   * Names of the tokens that admit. Default: all of them.
   */
  names?: string[];
  /**
   * Scopes that the token must grant, all of them.
   */
  scopes: string[];
}
/**
 * A client certificate of tls.ca_file. Any of them admits unless 'subjects' or 'sans' say which; then one match is enough.
 */
export interface ClientCertificateWay {
  /**
   * Subjects that admit: the common name alone (trader), or the whole distinguished name as openssl prints it with -nameopt RFC2253 (CN=trader,O=Acme).
   */
  subjects?: string[];
  /**
   * Subject alternative names that admit: DNS names, e-mail addresses, IP addresses or URIs such as spiffe://example.com/bot.
   */
  sans?: string[];
}
/**
 * Tokens of the gateway's own authorization server: clients register themselves, people log in by 'auth.login'.
 */
export interface OAuthWay {
  /**
   * Scopes that a token must have, all of them; a client that asks for none gets these.
   */
  scopes: string[];
  /**
   * Further scopes that a client may ask for.
   */
  optional_scopes: string[];
  allow?: AllowPeople;
  /**
   * Names of entries of auth.issuers whose identity assertions (ID-JAG) clients may exchange for tokens, without a browser, for people of theirs whom 'allow' admits by 'users', 'emails', 'domains', 'groups' or 'claims'.
   */
  identity_assertions: string[];
  /**
   * Grants that clients may use.
   */
  grants: ("authorization_code" | "refresh_token" | "client_credentials")[];
  /**
   * How long an access token is valid.
   */
  access_token_lifetime: string;
  /**
   * How long a client that is not used stays connected: each refresh begins it anew.
   */
  refresh_token_lifetime: string;
  /**
   * How long a login counts, however often its client comes: what GitHub or the provider said of a person is asked again after it.
   */
  login_lifetime: string;
  /**
   * opaque: looked up at each request, so that revoking works at once. jwt: upstreams can check it themselves.
   */
  access_token_format: "opaque" | "jwt";
}
/**
 * Tokens of an entry of auth.issuers.
 */
export interface IssuerWay {
  /**
   * Name of the entry.
   */
  name: string;
  /**
   * Scopes that a token must have, all of them.
   */
  scopes: string[];
  allow?: AllowPeople;
}
/**
 * People with browsers: who is not logged in is sent to the login and comes back with a cookie. Other requests get 401.
 */
export interface SessionWay {
  allow?: AllowPeople;
  /**
   * How long a login lasts.
   */
  lifetime: string;
}
/**
 * The upstream speaks MCP: messages are read, and what could be understood in two ways is refused.
 */
export interface Mcp {
  /**
   * A session (Mcp-Session-Id) belongs to whom it was opened for: to others it is 404.
   */
  session_binding: boolean;
}
/**
 * Header names and their values.
 */
export interface SetHeaders {
  [k: string]: string;
}
/**
 * Changes to the response headers on the way to the client.
 */
export interface ResponseHeaders {
  set: SetHeaders;
  /**
   * Headers taken off.
   */
  remove: string[];
}
/**
 * Cross-origin requests of browsers. Preflights are answered here, before auth. Without it the upstream's own CORS headers pass.
 */
export interface Cors {
  /**
   * Origins that may call, as https://app.example.com, or "*" for any.
   */
  origins: string[];
  /**
   * Methods that a preflight allows.
   */
  methods: string[];
  /**
   * Request headers that a preflight allows. Default: those that it asks for.
   */
  headers?: string[];
  /**
   * Response headers that scripts may read.
   */
  expose_headers: string[];
  /**
   * Allow cookies and HTTP authentication. Not with the origin "*".
   */
  credentials: boolean;
  /**
   * How long a browser may keep the answer to a preflight.
   */
  max_age: string;
}
