// The TypeScript SDKs as clients of Charter. Prints what happened as one JSON object.
// usage: node typescript_client.mjs MODULES v1|v2 URL TOKEN pending|approve

import { createRequire } from 'node:module';

const [modules, sdk, url, token, wish] = process.argv.slice(2);
const require = createRequire(`${modules}/index.js`);
const capabilities = wish === 'approve' ? { elicitation: { form: {} } } : {};
const asked = [];

function answer(request) {
  asked.push(request.params.message);
  return { action: 'accept', content: { decision: 'approve', comment: 'Fine with me.' } };
}

function v1() {
  const { Client } = require('@modelcontextprotocol/sdk/client/index.js');
  const { StreamableHTTPClientTransport } = require('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const { ElicitRequestSchema } = require('@modelcontextprotocol/sdk/types.js');
  const client = new Client({ name: 'ts-v1', version: '1' }, { capabilities });
  if (wish === 'approve') client.setRequestHandler(ElicitRequestSchema, answer);
  return { client, StreamableHTTPClientTransport };
}

function v2() {
  const { Client, StreamableHTTPClientTransport } = require('@modelcontextprotocol/client');
  const client = new Client(
    { name: 'ts-v2', version: '1' },
    { capabilities, versionNegotiation: { mode: 'auto' } }
  );
  if (wish === 'approve') client.setRequestHandler('elicitation/create', answer);
  return { client, StreamableHTTPClientTransport };
}

const { client, StreamableHTTPClientTransport } = sdk === 'v1' ? v1() : v2();
const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers: { authorization: `Bearer ${token}` } }
});
await client.connect(transport);

const call = (name, args) => client.callTool({ name, arguments: args });
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const started = await call('start_workflow', { purpose: 'Tidy the casebook' });
const { workflow_id, agent_invocation_id } = started.structuredContent;
const ids = { workflow_id, agent_invocation_id };
const outside = await call('casebook__read_note', { name: 'welcome' });
const read = await call('casebook__read_note', { ...ids, name: 'welcome' });
const write = await call('casebook__write_note', { ...ids, name: `from-${sdk}-${wish}`, text: 'Hello.' });
const proposal_id = write.structuredContent.proposal_id;
const requested = await call('request_approval', { ...ids, proposal_id });
const invoked = wish === 'approve' ? await call('invoke_tool', { ...ids, proposal_id }) : null;
const after = await call('get_workflow', { workflow_id });
const pending = await client.readResource({ uri: 'charter://approvals/pending' });
const prompts = (await client.listPrompts()).prompts.map((prompt) => prompt.name);
const prompt = await client.getPrompt({ name: 'pending_approvals' });
// Only the older revisions have these two; v1 takes no member in an empty result.
const subscribed =
  sdk === 'v1'
    ? [await client.subscribeResource({ uri: 'charter://approvals/pending' }), await client.setLoggingLevel('warning')]
    : null;
// Errors of every kind of tool get past the client, which checks them against the listed output schemas.
const bad = { workflow_id: 'wf_none', agent_invocation_id: 'inv_none', tool: 'none', arguments: {}, reason: 'r' };
const errors = {};
for (const name of tools.filter((name) => !name.startsWith('every__') && !name.startsWith('old__'))) {
  for (const args of [{ nonsense: true }, {}, bad]) {
    const result = await call(name, args);
    if (result.isError) (errors[name] ??= []).push(result.structuredContent.code);
  }
}
const protocol = sdk === 'v1' ? transport.protocolVersion : client.getNegotiatedProtocolVersion?.();
await client.close();

console.log(
  JSON.stringify({
    protocol, tools, ids, outside, read, write, requested, invoked, after, pending, prompts, prompt, subscribed, asked, errors
  })
);
