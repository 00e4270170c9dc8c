// Reads a tenant's flags with OpenFeature's own clients: the server's (one request for each flag) and
// the browser's (all at once). Prints what they got, as JSON.
//
// BASE: the tenant's address. TOKEN: an access token of one of its people. FLAGS: JSON, default by key.
import dns from 'node:dns';
import { OpenFeature } from '@openfeature/server-sdk';
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature as WebFeature } from '@openfeature/web-sdk';

// Names below localhost are this machine (RFC 6761 section 6.3); many systems' resolvers don't know.
const lookup = dns.lookup;
dns.lookup = (host, options, done) =>
  lookup(host.endsWith('.localhost') ? 'localhost' : host, options, done);

const { BASE, TOKEN, FLAGS } = process.env;
const options = { baseUrl: BASE, headers: [['Authorization', `Bearer ${TOKEN}`]] };

const ask = async (client, ...context) => {
  const told = {};
  for (const [key, fallback] of Object.entries(JSON.parse(FLAGS))) {
    const kind = typeof fallback;
    const method = `get${kind[0].toUpperCase()}${kind.slice(1)}Details`;
    const { value, reason, variant, errorCode, flagMetadata } =
      await client[method](key, fallback, ...context);
    told[key] = { value, reason, variant, errorCode, origin: flagMetadata.origin };
  }
  return told;
};

await OpenFeature.setProviderAndWait(new OFREPProvider(options));
// Whoever calls says that it is somebody else; it must not help.
const server = await ask(OpenFeature.getClient(), { targetingKey: 'boss', tenant: 'min-sante' });

await WebFeature.setContext({ targetingKey: 'boss', tenant: 'min-sante' });
await WebFeature.setProviderAndWait(new OFREPWebProvider(options));
const web = await ask(WebFeature.getClient());

console.log(JSON.stringify({ server, web }));
await OpenFeature.close();
await WebFeature.close();
