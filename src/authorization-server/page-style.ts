// How pages look: one style sheet, small enough to go with each page; its hash is what the policy of pages admits.
import { createHash } from "node:crypto";

export const STYLE = `
:root{color-scheme:light dark;--back:#f3f4f7;--card:#fff;--line:#d8dce4;--text:#171a21;--soft:#565d6d;--field:#fff;--edge:#868e9f;--main:#1d4ed8;--main-over:#1a43b8;--on-main:#fff;--note:#f5f7fa;--bad:#fdecec;--bad-line:#d66;--bad-text:#8c1515}
@media (prefers-color-scheme:dark){:root{--back:#0e1116;--card:#171b22;--line:#2d343f;--text:#e8ebf0;--soft:#a5aebd;--field:#0f1319;--edge:#6f7a8c;--main:#8ab0ff;--main-over:#a9c5ff;--on-main:#0b1530;--note:#1d232c;--bad:#331718;--bad-line:#a14545;--bad-text:#ffb9b9}}
*,*::before,*::after{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;min-height:100vh;min-height:100dvh;display:flex;flex-direction:column;align-items:center;justify-content:center;padding:2.5rem 1.25rem;background:var(--back);color:var(--text);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
main{width:100%;max-width:29rem;padding:2rem;background:var(--card);border:1px solid var(--line);border-radius:.875rem;box-shadow:0 1px 2px rgb(15 20 30/.05),0 12px 32px -16px rgb(15 20 30/.18)}
header{display:flex;align-items:center;gap:.5rem;margin-bottom:1.25rem;color:var(--soft);font-size:.875rem}
header svg{flex:none;width:1.25rem;height:1.25rem}
h1{margin:0 0 .5rem;font-size:1.375rem;line-height:1.3;font-weight:650;letter-spacing:-.01em;text-wrap:balance}
h2{margin:0 0 .5rem;font-size:.9375rem;line-height:1.4;font-weight:600}
p{margin:0 0 1rem}
.soft,.hint{color:var(--soft)}
.hint{display:block;font-size:.875rem}
dl{margin:1.25rem 0;border:1px solid var(--line);border-radius:.625rem}
dl>div{padding:.75rem 1rem}
dl>div+div{border-top:1px solid var(--line)}
dt{color:var(--soft);font-size:.8125rem}
dd{margin:0;font-weight:550}
dd .hint{font-weight:400}
dd ul{margin:.125rem 0 0;padding-left:1.125rem;font-weight:400}
dd li{margin-top:.125rem}
code{font:.875em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.note{margin:0 0 1.25rem;padding:.75rem 1rem;border:1px solid var(--line);border-radius:.625rem;background:var(--note);font-size:.9375rem}
.bad{background:var(--bad);border-color:var(--bad-line);color:var(--bad-text)}
.note p:last-child{margin:0}
form{margin:0}
form+form,form+.or,.or+form{margin-top:.75rem}
label{display:block;margin-bottom:.25rem;font-size:.875rem;font-weight:550}
input{display:block;width:100%;min-height:2.75rem;margin-bottom:.875rem;padding:.5rem .75rem;border:1px solid var(--edge);border-radius:.5rem;background:var(--field);color:var(--text);font:inherit}
button,.button{display:flex;align-items:center;justify-content:center;width:100%;min-height:2.75rem;padding:.5rem 1rem;border:1px solid transparent;border-radius:.5rem;background:var(--main);color:var(--on-main);font:inherit;font-weight:600;text-align:center;text-decoration:none;cursor:pointer}
button:hover,.button:hover{background:var(--main-over)}
button.plain,.button.plain{background:transparent;border-color:var(--edge);color:var(--text)}
button.plain:hover,.button.plain:hover{background:var(--note)}
a{color:var(--main)}
:focus-visible{outline:3px solid var(--main);outline-offset:2px}
.last{margin-top:1.25rem;padding-top:1.25rem;border-top:1px solid var(--line)}
.after{margin:.75rem 0 0}
.or{display:flex;align-items:center;gap:.75rem;margin-bottom:0;color:var(--soft);font-size:.875rem}
.or::before,.or::after{content:"";flex:1;border-top:1px solid var(--line)}
footer{width:100%;max-width:29rem;margin-top:1rem;padding:0 .25rem;color:var(--soft);font-size:.8125rem;text-align:center}
@media (max-width:30rem){body{justify-content:flex-start;padding:1rem}main{padding:1.375rem 1.25rem}}
@media (forced-colors:active){button,.button,main,.note{border:1px solid}}
`;

export const STYLE_SOURCE = `'sha256-${createHash("sha256").update(STYLE).digest("base64")}'`;
