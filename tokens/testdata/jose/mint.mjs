// Mints user tokens as the identity provider of a tenant would, good ones and others, with the set
// of public keys that it publishes.
//
//   node mint.mjs ISSUER AUDIENCE SUBJECT
import { SignJWT, exportJWK, generateKeyPair } from 'jose';

const [issuer, audience, subject] = process.argv.slice(2);
const keys = [];
const tokens = [];
const now = Math.floor(Date.now() / 1000);
for (const alg of ['EdDSA', 'ES256', 'RS256', 'PS256', 'ES384']) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  const kid = `key of ${alg}`;
  keys.push({ ...(await exportJWK(publicKey)), kid, alg, use: 'sig' });
  const mint = async (name, { claims = {}, header = {}, exp = now + 600, aud = audience } = {}) => {
    const token = await new SignJWT({ name: 'Ana', ...claims })
      .setProtectedHeader({ alg, kid, typ: 'JWT', ...header })
      .setIssuer(issuer).setAudience(aud).setSubject(subject).setIssuedAt(now - 60).setExpirationTime(exp)
      .sign(privateKey);
    tokens.push({ alg, case: name, token });
  };
  await mint('good', { aud: ['https://api.example/', audience] });
  await mint('expired', { exp: now - 1 });
  await mint('another audience', { aud: 'https://api.example/' });
  await mint('another key', { header: { kid: 'key of nobody' } });
  await mint('a session', { header: { typ: 'wr-session+jwt' } });
}
console.log(JSON.stringify({ jwks: { keys }, tokens: tokens.map((t) => (
  // Algorithms that are not taken are refused, whatever the token says.
  ['PS256', 'ES384'].includes(t.alg) ? { ...t, case: 'algorithm' } : t
)) }));
