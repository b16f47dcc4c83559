import t from 'tap'
import { checkEntry, checkPage } from '../../lib/feed/check-entry.ts'

const tail = Buffer.from('"data":1,"key":"k"}')
const message = { offset: 2, tail, payloadLength: 1, key: 'k' }
const page = { position: { epoch: 'a'.repeat(16), offset: 3 }, from: 1, messages: [message, { offset: 3, tail: new Uint8Array(Buffer.from('"data":{}}')), payloadLength: 2 }] }

t.test('a page is copied', async t => {
  const checked = checkPage('news', page)
  t.same(checked, { ...page, messages: [message, { offset: 3, tail: Buffer.from('"data":{}}'), payloadLength: 2, key: undefined }] })
  t.ok(checked.messages.every(({ tail }) => Buffer.isBuffer(tail)))
  t.same(checkPage('news', { ...page, messages: [] }).messages, [])
  const skips = [{ after: 0, to: 1 }, { after: 1, to: 3 }]
  t.same(checkPage('news', { ...page, skips: skips.map(skip => ({ ...skip, more: 1 })) }).skips, skips)
  const end = { offset: 3, tail: Buffer.from('"reason":"done","data":[1]}'), payloadLength: 0, key: undefined }
  t.same(checkPage('news', { ...page, ended: 'done', messages: [message, end] }), { ...page, ended: 'done', messages: [message, end] })
})

t.test('each fault is named', async t => {
  const faults: [unknown, RegExp][] = [
    [undefined, /"position"/],
    ['page', /"position"/],
    [{ ...page, position: { epoch: '', offset: 1 } }, /"position"/],
    [{ ...page, from: 4 }, /"from"/],
    [{ ...page, from: -1 }, /"from"/],
    [{ ...page, from: 0.5 }, /"from"/],
    [{ ...page, messages: undefined }, /"messages"/],
    [{ ...page, messages: [message, message] }, /order/],
    [{ ...page, messages: [{ ...message, offset: 4 }] }, /order/],
    [{ ...page, messages: [{ ...message, offset: 1.5 }] }, /order/],
    [{ ...page, messages: [null] }, /order/],
    [{ ...page, messages: [{ ...message, tail: 'text' }] }, /end of a frame/],
    [{ ...page, messages: [{ ...message, payloadLength: 0 }] }, /end of a frame/],
    [{ ...page, messages: [{ ...message, payloadLength: 2.5 }] }, /end of a frame/],
    [{ ...page, messages: [{ ...message, payloadLength: 5 }] }, /end of a frame/],
    [{ ...page, messages: [{ ...message, key: '' }] }, /end of a frame/],
    [{ ...page, ended: true }, /"ended"/],
    ...[{}, [null], [{ after: 1, to: 1 }], [{ after: -1, to: 1 }], [{ after: 0.5, to: 1 }], [{ after: 1, to: 4 }], [{ after: 1, to: 2 }, { after: 1, to: 3 }]].map((skips): [unknown, RegExp] => [{ ...page, skips }, /"skips"/]),
    [{ ...page, messages: [{ ...message, tail: Buffer.from('"reason":"over"}'), payloadLength: 0 }] }, /end of a frame/]
  ]
  for (const [given, message] of faults) t.throws(() => checkPage('news', given), { code: 'FST_ROOMS_BROKER_FAULT', message })
})

t.test('an entry that ends its topic', async t => {
  const entry = (tail: string, more: object = {}) => ({ v: 1, uid: 'u', node: 'n', topic: 'run', tail: Buffer.from(tail), payloadLength: 0, end: 'done', deadline: 1, ...more })
  for (const tail of ['"reason":"done"}', '"reason":"done","data":null}', '"reason":"done","data":{"a":[1]}}']) t.equal(checkEntry('run', entry(tail)).end, 'done', tail)
  for (const tail of ['', '"reason":"failed"}', '"reason":"done"', '"reason":"done","id":"x"}', '"reason":"done","data":1,"type":"x"}', ' "reason":"done"}', '"data":1,"reason":"done"}', '"reason":"done"}}', '"reason":"done","data":1', '"data":1}']) {
    t.throws(() => checkEntry('run', entry(tail)), { code: 'FST_ROOMS_BROKER_FAULT', message: /"tail" is not the end of an "end" frame/ }, tail)
  }
  t.throws(() => checkEntry('run', entry('"reason":"done"}', { payloadLength: 1 })), { message: /"tail"/ })
  t.throws(() => checkEntry('run', entry('"reason":"over"}', { end: 'over' })), { message: /"end" is not a reason/ })
  t.throws(() => checkEntry('run', entry('"reason":"done"}', { end: undefined })), { message: /"payloadLength"/ })
  t.notOk('end' in checkEntry('run', entry('"data":1}', { end: undefined, payloadLength: 1 })))
})
