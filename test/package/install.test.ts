import { join } from 'node:path'
import t from 'tap'
import { app, everything, faults, required, topics, wrong, wrongs } from './programs.ts'
import { entries, exportedNames, install, optionalPeers, tool, run, write } from './tarball.ts'

const folder = await install(t, optionalPeers)
const names = await exportedNames(folder)
const node = (file: string): ReturnType<typeof run> => run(process.execPath, [file], folder)

/** Code and output of a program that registers the plugin and lets a member receive a broadcast. */
const said = { data: { hello: 'world' } }
const conversation = `
  const client = await app.rooms.inject('/rooms/news')
  await client.next('hello')
  await app.rooms.broadcast('news', { hello: 'world' })
  const { data } = await client.next('message')
  await client.close()
  await app.close()
  console.log(JSON.stringify({ data }))`

t.test('CommonJS: require returns the plugin with all other exports on it, without a warning', async t => {
  await write(folder, {
    'required.cjs': `
const fastify = require('fastify')
const fastifyRooms = require('fastify-rooms')
const { closeBehaviour, closeCodes, defineTopics, errorCodes, memoryBroker } = fastifyRooms

async function main () {
  const app = fastify()
  app.register(fastifyRooms, { prefix: '/rooms', broker: memoryBroker() })
  await app.ready()
  ${conversation}
  console.log(JSON.stringify({
    same: fastifyRooms === fastifyRooms.default && fastifyRooms === fastifyRooms.fastifyRooms && fastifyRooms === (await import('fastify-rooms')).default,
    plugin: fastifyRooms[Symbol.for('plugin-meta')].name,
    topics: Object.keys(defineTopics({ news: {} })),
    close: [closeCodes[4102], typeof closeBehaviour],
    error: new errorCodes.FST_ROOMS_CLOSED().code
  }))
}
main()
`
  })
  const { code, stdout, stderr } = await node('required.cjs')
  t.equal(stderr, '')
  t.equal(code, 0)
  t.same(stdout.trim().split('\n').map(line => JSON.parse(line)), [said, {
    same: true,
    plugin: 'fastify-rooms',
    topics: ['news'],
    close: ['room_full', 'function'],
    error: 'FST_ROOMS_CLOSED'
  }])
})

t.test('ESM: the default export and the named one are the plugin, without a warning', async t => {
  await write(folder, {
    'imported.mjs': `
import Fastify from 'fastify'
import fastifyRooms, { fastifyRooms as named, memoryBroker } from 'fastify-rooms'
import * as everything from 'fastify-rooms'

const app = Fastify()
await app.register(named, { prefix: '/rooms', broker: memoryBroker() })
${conversation}
console.log(JSON.stringify({ same: fastifyRooms === named, names: Object.keys(everything) }))
`
  })
  const { code, stdout, stderr } = await node('imported.mjs')
  t.equal(stderr, '')
  t.equal(code, 0)
  t.same(stdout.trim().split('\n').map(line => JSON.parse(line)), [said, {
    same: true,
    names: ['bearerToken', 'closeBehaviour', 'closeCodes', 'default', 'defineTopics', 'errorCodes', 'fastifyRooms', 'memoryBroker', 'module.exports']
  }])
})

t.test('fastify-rooms/metrics can be required and imported, and is one module', async t => {
  await write(folder, {
    'metrics.cjs': `
const fastify = require('fastify')
const fastifyRooms = require('fastify-rooms')
const { roomsMetrics } = require('fastify-rooms/metrics')

async function main () {
  const app = fastify()
  await app.register(fastifyRooms, { prefix: '/rooms' })
  const metrics = new Map()
  const registry = {
    registerMetric: metric => { metrics.set(metric.name, metric) },
    getSingleMetric: name => metrics.get(name),
    removeSingleMetric: name => { metrics.delete(name) }
  }
  const remove = roomsMetrics(app.rooms, { registry })
  const [{ value }] = metrics.get('fastify_rooms_ready').get().values
  remove()
  await app.close()
  console.log(JSON.stringify({ value, left: metrics.size, same: roomsMetrics === (await import('fastify-rooms/metrics')).roomsMetrics }))
}
main()
`
  })
  const { code, stdout, stderr } = await node('metrics.cjs')
  t.equal(stderr, '')
  t.equal(code, 0)
  t.same(JSON.parse(stdout), { value: 1, left: 0, same: true })
})

t.test('each entry can be required and imported, and exports something', async t => {
  t.same(Object.keys(names), entries.map(({ name }) => name))
  for (const [entry, exported] of Object.entries(names)) t.not(exported.length, 0, entry)
  t.same(names['fastify-rooms/topics'], ['defineTopics'])
})

t.test('paths inside the package are not exported', async t => {
  await write(folder, { 'inside.mjs': 'import \'fastify-rooms/dist/lib/plugin.js\'' })
  const { code, stderr } = await node('inside.mjs')
  t.not(code, 0)
  t.match(stderr, 'ERR_PACKAGE_PATH_NOT_EXPORTED')
})

// Types of dependencies are checked as well, because a user's program loads them.
for (const [type, module] of [['module', 'nodenext'], ['commonjs', 'node20']] as const) {
  t.test(`TypeScript: a project of type ${type} with module ${module} compiles and runs, and Register makes wrong uses errors`, async t => {
    const name = `${type}-${module}`
    await write(folder, {
      [`${name}/package.json`]: { type },
      [`${name}/tsconfig.json`]: {
        compilerOptions: { target: 'es2023', lib: ['es2023'], module, rootDir: '.', outDir: 'out', strict: true, skipLibCheck: false, types: ['node'] },
        include: ['*.ts']
      },
      // The topics are registered through the entry that a page can import, too.
      [`${name}/topics.ts`]: topics.replaceAll('\'fastify-rooms\'', '\'fastify-rooms/topics\''),
      [`${name}/app.ts`]: app,
      [`${name}/wrong.ts`]: wrong,
      [`${name}/everything.ts`]: everything(names),
      ...(type === 'commonjs' ? { [`${name}/required.ts`]: required } : {})
    })
    const { stdout } = await tool('typescript/bin/tsc', ['--pretty', 'false', '-p', name], folder)
    t.same(faults(stdout), wrongs)

    const { code, stdout: printed, stderr } = await node(join(name, 'out/app.js'))
    t.equal(stderr, '')
    t.equal(code, 0)
    t.same(JSON.parse(printed), { data: { text: 'one' }, local: 1, same: true, close: 'room_full', error: 'FST_ROOMS_CLOSED' })
    if (type === 'commonjs') {
      const loaded = await node(join(name, 'out/required.js'))
      t.equal(loaded.stderr, '')
      t.same(JSON.parse(loaded.stdout), { topics: ['news'], same: true })
    }
  })
}
