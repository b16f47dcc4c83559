import neostandard, { resolveIgnoresFromGitignore } from 'neostandard'

/** Imports run one way: plugin and routes → hub → protocol and types; docs/architecture.md says why. */
const layer = (files, group, message) => ({
  files,
  rules: { 'no-restricted-imports': ['error', { patterns: [{ group, message }] }] }
})

export default [
  ...neostandard({ ts: true, ignores: resolveIgnoresFromGitignore() }),
  layer(['types/*.ts'], ['**/lib/**'], 'types never import lib'),
  layer(['lib/protocol/*.ts'], ['node:*', '../*.ts', '../hub/**', '../routes/*', '../brokers/*', '**/types/index.ts', 'fastify', '@fastify/*'], 'the protocol is for browsers, too: it imports types/protocol.ts alone'),
  layer(['lib/topics/index.ts', 'lib/topics/define.ts'], ['node:*', '../*.ts', '**/types/index.ts', './compile.ts', './registry.ts', './payload.ts', '@*/*'], 'shared topics are for browsers, too: they import types/topics.ts alone'),
  layer(['lib/metrics/*.ts'], ['../routes/*', '../plugin.ts', '../options.ts', 'fastify', '@fastify/*'], 'metrics know app.rooms and what is behind it, and no Fastify'),
  layer(['lib/brokers/*.ts', 'lib/nats/*.ts'], ['../hub/**', '../routes/*', '../plugin.ts', 'fastify'], 'a broker depends on types (and errors) alone'),
  layer(
    ['hub', 'room', 'session', 'frames', 'connection', 'transport', 'feed', 'presence', 'limits', 'identity'].map(folder => `lib/${folder}/**/*.ts`),
    ['**/routes/*', '**/server/*', '**/api/*', '**/plugin.ts', '**/options.ts', 'fastify', '@fastify/*'],
    'rooms and sessions know no Fastify'
  )
]
