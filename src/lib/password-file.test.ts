import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { decoyHash, hashPassword, parsePasswordFile, verifyPassword } from "./password-file.ts";

// Of passlib's documentation: ours are not the only ones that can be in a file.
const PASSLIB = "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E";

suite("the password file", () => {
  test("lines, groups, comments, line ends of Windows and a byte order mark", () => {
    const { users, problems } = parsePasswordFile(`\uFEFFalice:${PASSLIB}:ops, traders,\r\n\r\n# bob was here\r\n  carol:${PASSLIB}\r\n`);
    assert.deepEqual(problems, []);
    assert.deepEqual(
      [...users],
      [
        ["alice", { hash: PASSLIB, groups: ["ops", "traders"] }],
        ["carol", { hash: PASSLIB, groups: [] }],
      ],
    );
  });

  for (const [what, line, message] of [
    ["no colon, which may be a password", "hunter2secret", /^has no ':' between name and hash$/],
    ["no hash", "alice:", /has no hash for 'alice'/],
    ["a plain password", "alice:hunter2secret", /has no hash for 'alice'; 'sidegate hash-password'/],
    ["an htpasswd hash", "alice:$apr1$hunter2secret$x", /hash of another kind for 'alice': only those of 'sidegate hash-password' \(scrypt\)/],
    ["a hash by SHA-1", "alice:{SHA}hunter2secret=", /hash of another kind for 'alice'/],
    ["no name", `:${PASSLIB}`, /no user name before/],
    ["a name with a space", `al ice:${PASSLIB}`, /no user name before/],
    ["too many colons", `alice:${PASSLIB}:ops:hunter2secret`, /too many ':' for 'alice'/],
    ["a hash that is too cheap", "alice:$scrypt$ln=10,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", /has no hash/],
    ["a hash that takes all memory", "alice:$scrypt$ln=30,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", /has no hash/],
    ["a hash that takes for ever", "alice:$scrypt$ln=17,r=8,p=99$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", /has no hash/],
    ["a hash of no rounds", "alice:$scrypt$ln=17,r=0,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", /has no hash/],
  ] as const) {
    test(`a line with ${what} is a problem with its number, which does not repeat secrets`, () => {
      const { users, problems } = parsePasswordFile(`# first\n${line}\n`);
      assert.equal(users.size, 0);
      assert.equal(problems[0]?.line, 2);
      assert.match(problems[0]?.message ?? "", message);
      assert.doesNotMatch(problems[0]?.message ?? "", /hunter2secret|nFNh2/);
    });
  }

  test("a name may stand once", () => {
    const { users, problems } = parsePasswordFile(`alice:${PASSLIB}:a\nalice:${PASSLIB}:b\n`);
    assert.deepEqual([users.get("alice")?.groups, problems], [["a"], [{ line: 2, message: "names 'alice' a second time" }]]);
  });

  test("a hash is of its password alone, and never the same twice", async () => {
    const [one, two] = await Promise.all([hashPassword("pässword"), hashPassword("pässword")]);
    assert.notEqual(one, two);
    assert.equal(parsePasswordFile(`alice:${one}`).users.get("alice")?.hash, one);
    assert.equal(await verifyPassword("pässword", one), true);
    // The same letter, as another keyboard sends it.
    assert.equal(await verifyPassword("pa\u0308ssword", one), true);
    assert.equal(await verifyPassword("passw\u00f6rd", one), false);
  });

  test("hashes of other makers are understood", async () => {
    assert.equal(await verifyPassword("password", PASSLIB), true);
    assert.equal(await verifyPassword("Password", PASSLIB), false);
    assert.equal(await verifyPassword("", PASSLIB), false);
  });

  test("what is no hash verifies nothing", async () => {
    for (const hash of ["", "password", "$scrypt$", "$scrypt$ln=16,r=8,p=1$$", PASSLIB.slice(0, -20)])
      assert.equal(await verifyPassword("password", hash), false);
  });

  test("a decoy costs as much as most hashes do, and is of no password", async () => {
    assert.match(decoyHash([PASSLIB, PASSLIB, PASSLIB.replace("ln=16", "ln=15")]), /^\$scrypt\$ln=16,r=8,p=1\$/);
    assert.match(decoyHash([]), /^\$scrypt\$ln=17,r=8,p=1\$/);
    assert.equal(await verifyPassword("", decoyHash([PASSLIB])), false);
    assert.equal(parsePasswordFile(`alice:${decoyHash([])}`).problems.length, 0);
  });
});
