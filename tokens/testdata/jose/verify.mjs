// Verifies a session token as a backend in any language would: with a JOSE library and the
// public keys of the waiting room.
//
//   node verify.mjs JWKS_URL TOKEN ISSUER AUDIENCE
//
// Prints the payload as JSON. A refused token prints the error's code to standard error and
// leaves with status 1.
import { createRemoteJWKSet, jwtVerify } from 'jose';

const [jwksUrl, token, issuer, audience] = process.argv.slice(2);
if (audience === undefined) {
  console.error('usage: node verify.mjs JWKS_URL TOKEN ISSUER AUDIENCE');
  process.exit(2);
}

try {
  const keys = createRemoteJWKSet(new URL(jwksUrl));
  const { payload } = await jwtVerify(token, keys, {
    algorithms: ['EdDSA'],
    typ: 'wr-session+jwt',
    issuer,
    audience,
    clockTolerance: 0,
    requiredClaims: ['exp', 'nbf', 'iat', 'jti', 'sub', 'queue'],
  });
  console.log(JSON.stringify(payload));
} catch (error) {
  console.error(error.code ?? String(error));
  process.exitCode = 1;
}
