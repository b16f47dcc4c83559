import t from 'tap'
import { checkPage } from '../../lib/feed/check-entry.ts'

const tail = Buffer.from('"data":1,"key":"k"}')
const message = { offset: 2, tail, payloadLength: 1, key: 'k' }
const page = { position: { epoch: 'a'.repeat(16), offset: 3 }, from: 1, messages: [message, { offset: 3, tail: new Uint8Array(Buffer.from('"data":{}}')), payloadLength: 2 }] }

t.test('a page is copied', async t => {
  const checked = checkPage('news', page)
  t.same(checked, { ...page, messages: [message, { offset: 3, tail: Buffer.from('"data":{}}'), payloadLength: 2, key: undefined }] })
  t.ok(checked.messages.every(({ tail }) => Buffer.isBuffer(tail)))
  t.same(checkPage('news', { ...page, messages: [] }).messages, [])
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
    [{ ...page, messages: [{ ...message, key: '' }] }, /end of a frame/]
  ]
  for (const [given, message] of faults) t.throws(() => checkPage('news', given), { code: 'FST_ROOMS_BROKER_FAULT', message })
})
