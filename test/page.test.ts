import { connect as connectTcp, createServer, type AddressInfo, type Socket } from 'node:net'
import type { BrowserContextOptions, Locator, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { join } from './helpers/app.ts'
import { curve, holds, launch, reads, say, tabs } from './helpers/browser.ts'
import { startExample, type Example } from './helpers/process.ts'

const desktop: BrowserContextOptions = { viewport: { width: 1280, height: 800 } }
const phone: BrowserContextOptions = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }

/** Visible controls that are smaller than 44 × 44 CSS pixels. */
const smallControls = `[...document.querySelectorAll('button, input, a, summary')].filter(node => node.checkVisibility()).flatMap(node => {
  const { width, height } = node.getBoundingClientRect()
  return width < 44 || height < 44 ? [node.outerHTML.slice(0, 80) + ' ' + width + ' × ' + height] : []
})`

/** Visible texts with a contrast below WCAG AA, and edges of inputs and buttons with a contrast below 3 : 1 to their surroundings. */
const faintTexts = `{
  const pixel = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
  const rgba = colour => {
    pixel.clearRect(0, 0, 1, 1)
    pixel.fillStyle = colour
    pixel.fillRect(0, 0, 1, 1)
    return [...pixel.getImageData(0, 0, 1, 1).data]
  }
  const luminance = colour => rgba(colour).slice(0, 3).map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0)
  const contrast = (...colours) => {
    const [low, high] = colours.map(luminance).sort((one, other) => one - other)
    return (high + 0.05) / (low + 0.05)
  }
  const behind = node => {
    for (; node !== null; node = node.parentElement) if (rgba(getComputedStyle(node).backgroundColor)[3] === 255) return getComputedStyle(node).backgroundColor
  }
  const faint = []
  const check = (node, colour, least, around = node) => {
    const found = contrast(colour, behind(around))
    if (found < least) faint.push(node.outerHTML.slice(0, 80) + ' ' + found.toFixed(2))
  }
  for (const node of document.body.querySelectorAll('*')) {
    if (!node.checkVisibility()) continue
    const style = getComputedStyle(node)
    const text = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim() !== '')
    if (text || node.matches('#log:empty')) check(node, style.color, parseFloat(style.fontSize) >= 24 ? 3 : 4.5)
    if (node.matches('input')) check(node, getComputedStyle(node, '::placeholder').color, 4.5)
    if (node.matches('input, button:not(.primary, .quiet)')) check(node, style.borderTopColor, 3, node.parentElement)
    if (node.matches('.plot')) check(node, getComputedStyle(node.querySelector('.curve')).stroke, 3)
  }
  faint
}`

/** The sum of all layout shifts since the page was opened, as the Layout Instability API counts them. */
const layoutShift = `new Promise(resolve => {
  let sum = 0
  new PerformanceObserver(list => { for (const { value } of list.getEntries()) sum += value }).observe({ type: 'layout-shift', buffered: true })
  setTimeout(() => { resolve(sum) }, 200)
})`

/** Visible controls without a name for a screen reader. */
const namelessControls = `[...document.querySelectorAll('button, input, a, [tabindex], [role]')].filter(node => node.checkVisibility()
  && !(node.ariaLabel || node.getAttribute('aria-labelledby') || node.labels?.length || node.textContent.trim())).map(node => node.outerHTML.slice(0, 80))`

async function hasFocus (locator: Locator): Promise<boolean> {
  return locator.evaluate((node: any) => node === node.ownerDocument.activeElement)
}

async function isInView (page: Page, selector: string): Promise<boolean> {
  return page.locator(selector).evaluate((node: any) => {
    const { top, bottom } = node.getBoundingClientRect()
    return bottom > top && top >= 0 && bottom <= node.ownerDocument.defaultView.innerHeight
  })
}

/** Ends the server under open pages, waits until they notice, and starts it again on the same port. */
async function restart (t: Test, example: Example, pages: Page[], meanwhile: () => Promise<void>): Promise<Example> {
  await example.stop()
  for (const page of pages) await page.locator('#chat-status[data-state=waiting]').waitFor()
  await meanwhile()
  const next = await startExample(t, 'example/server.ts', { PORT: new URL(example.url).port })
  for (const page of pages) {
    for (const room of ['chat', 'dashboard']) {
      const button = page.locator(`#${room}-status button`)
      if (await button.isVisible()) await button.click({ timeout: 500 }).catch(() => {}) // may have connected meanwhile
      await page.locator(`#${room}-status[data-state=open]`).waitFor()
    }
  }
  return next
}

/** A wire to a server that can be cut. */
class Wire {
  readonly url: string
  readonly #sockets = new Set<Socket>()
  #isCut = false

  static async to (t: Test, url: string): Promise<Wire> {
    const { hostname, port } = new URL(url)
    const server = createServer()
    await new Promise<void>(resolve => { server.listen(0, hostname, resolve) })
    const wire = new Wire(`http://${hostname}:${(server.address() as AddressInfo).port}`)
    server.on('connection', near => {
      if (wire.#isCut) {
        near.destroy()
        return
      }
      const far = connectTcp(Number(port), hostname)
      for (const [socket, other] of [[near, far], [far, near]] as const) {
        wire.#sockets.add(socket)
        socket.on('error', () => {}).on('close', () => {
          wire.#sockets.delete(socket)
          other.destroy()
        }).pipe(other)
      }
    })
    t.teardown(() => {
      wire.cut()
      server.close()
    })
    return wire
  }

  constructor (url: string) {
    this.url = url
  }

  /** Ends all connections, and refuses new ones. */
  cut (): void {
    this.#isCut = true
    for (const socket of this.#sockets) socket.destroy()
  }

  mend (): void {
    this.#isCut = false
  }
}

const browser = await launch(t)
if (browser !== undefined) {
  /** Opens the page in a browser of its own for each visitor. The tabs close with the test. */
  const people = async (t: Test, url: string, names: string[], options: BrowserContextOptions & { heard?: string[] }): Promise<Page[]> => {
    const pages = (await Promise.all(names.map(name => tabs(browser, url, [name], options)))).flat()
    t.teardown(() => Promise.all(pages.map(page => page.context().close())))
    return pages
  }
  // Tests that stop no server share one, because a start takes seconds.
  const { url } = await startExample(t, 'example/server.ts')

  t.test('issue 8: /quote is offered only if it works, and a private message never becomes public', async t => {
    const [teal, ruby] = await people(t, url, ['Teal Otter', 'Ruby Heron'], desktop) as [Page, Page]
    const offer = () => teal.locator('#text').getAttribute('placeholder')
    t.equal(await offer(), 'Message', 'without figures /quote is not offered')
    await teal.click('#random')
    await curve(teal, 'visits', 1)
    t.equal(await offer(), 'Message, or /quote visits')

    await teal.getByRole('button', { name: 'Write privately to Ruby Heron' }).click()
    t.equal(await offer(), 'Private message')
    await teal.getByRole('textbox', { name: 'Private message to Ruby Heron' }).waitFor()
    await say(teal, '/quote visits')
    await teal.locator('#chat-fault', { hasText: 'Commands work only in messages to everyone.' }).waitFor()
    await teal.press('#text', 'Escape')
    t.equal(await offer(), 'Message, or /quote visits')
    await teal.press('#text', 'Enter')
    await reads(ruby, 'quotes', 'visits: ')

    await teal.getByRole('button', { name: 'Write privately to Ruby Heron' }).click()
    await teal.fill('#text', 'Between us')
    await ruby.close()
    await reads(teal, 'Ruby Heron left')
    t.equal(await teal.locator('#target').innerText().then(text => text.replace(/\s+/g, ' ')), 'To Ruby Heron (has left) Write to all')
    await teal.press('#text', 'Enter')
    await teal.locator('#chat-fault', { hasText: 'Not sent, because your reader has left.' }).waitFor()
    t.equal(await teal.inputValue('#text'), 'Between us')
    await teal.getByRole('button', { name: 'Write to all' }).click()
    await say(teal, 'In public')
    await reads(teal, 'In public')
    t.equal(await teal.locator('#log li', { hasText: 'Between us' }).count(), 0)
  })

  t.test('issue 8: after each restart of the server the page announces its return once, and shows no error', async t => {
    let example = await startExample(t, 'example/server.ts')
    const [teal, ruby] = await people(t, example.url, ['Teal Otter', 'Ruby Heron'], desktop) as [Page, Page]
    for (const page of [teal, ruby]) await page.locator('#members-title', { hasText: '2 people here' }).waitFor()
    const joined = await teal.locator('#log li', { hasText: 'joined' }).count()
    for (let round = 1; round <= 2; round++) {
      example = await restart(t, example, [teal, ruby], async () => {
        t.equal(await teal.locator('#members-title').textContent(), 'Here before the connection was lost')
        await say(teal, `Are you there? ${round}`)
        await teal.locator('#chat-fault', { hasText: 'Not connected. Send it again once the connection is back.' }).waitFor()
        t.equal(await teal.inputValue('#text'), `Are you there? ${round}`, 'the text of the message is kept')
        await teal.click('#random')
        await teal.locator('#dashboard-fault', { hasText: 'The server cannot be reached. Nothing was added.' }).waitFor()
      })
      t.equal(await teal.locator('#chat-status').innerText(), 'Connected')
      t.notOk(await teal.locator('#chat-fault').isVisible(), 'the error of the chat is cleared')
      t.notOk(await teal.locator('#dashboard-fault').isVisible(), 'the error of the figures is cleared')
      t.notOk(await teal.locator('.status button').first().isVisible())
      await teal.press('#text', 'Enter')
      await reads(ruby, 'Teal Otter', `Are you there? ${round}`)
      t.equal(await teal.locator('#log li', { hasText: 'Back again' }).count(), 1)
      await reads(teal, `Back again${round === 1 ? '' : ` (${round} times)`}. Messages sent in the meantime may be missing.`)
    }
    await teal.locator('#members-title', { hasText: '2 people here' }).waitFor()
    t.equal(await teal.locator('#log li', { hasText: 'joined' }).count(), joined, 'members from before the restart are not announced')
  })

  t.test('a page that is cut, or reloaded, has each message and each number once', async t => {
    const { url } = await startExample(t, 'example/server.ts')
    const wire = await Wire.to(t, url)
    const [teal] = await people(t, wire.url, ['Teal Otter'], desktop) as [Page]
    const [ruby] = await people(t, url, ['Ruby Heron'], desktop) as [Page]
    const asked: string[] = []
    teal.on('websocket', socket => { asked.push(socket.url()) })
    const texts = (page: Page): Promise<string[]> => page.locator('#log li .text').allInnerTexts()
    await say(ruby, 'before the cut')
    await reads(teal, 'before the cut')
    await teal.click('#random')
    for (const page of [teal, ruby]) await curve(page, 'visits', 1)

    wire.cut()
    for (const room of ['chat', 'dashboard']) await teal.locator(`#${room}-status[data-state=waiting]`).waitFor()
    await say(ruby, 'during the cut')
    await ruby.click('#random')
    await curve(ruby, 'visits', 2)
    wire.mend()
    for (const room of ['chat', 'dashboard']) await teal.locator(`#${room}-status[data-state=open]`).waitFor()
    await reads(teal, 'during the cut')
    t.equal(await curve(teal, 'visits', 2), await curve(ruby, 'visits', 2))
    t.same(await texts(teal), ['before the cut', 'during the cut'])
    t.ok(asked.length >= 2 && asked.every(url => /[?&]since=[a-z0-9]+-\d+/.test(url)), 'each room resumes from its position')
    t.equal(await teal.locator('#log li', { hasText: 'Back again' }).count(), 0, 'nothing is missing')

    await teal.reload()
    await reads(teal, 'during the cut')
    t.equal(await curve(teal, 'visits', 2), await curve(ruby, 'visits', 2))
    await say(ruby, 'after the reload')
    await reads(teal, 'after the reload')
    t.same(await texts(teal), ['before the cut', 'during the cut', 'after the reload'])
  })

  t.test('a page whose position is lost with a restart of the server shows what the new server has', async t => {
    const example = await startExample(t, 'example/server.ts')
    const wire = await Wire.to(t, example.url)
    const [teal] = await people(t, wire.url, ['Teal Otter'], desktop) as [Page]
    await say(teal, 'to the old server')
    await reads(teal, 'to the old server')
    await teal.click('#random')
    await curve(teal, 'visits', 1)
    wire.cut()
    await example.stop()
    await teal.locator('#chat-status[data-state=waiting]').waitFor()
    const { url, host } = await startExample(t, 'example/server.ts', { PORT: new URL(example.url).port })
    const ruby = await join(t, `${host}/chat:lobby?name=Ruby`)
    await ruby.ask({ type: 'message', data: { text: 'to the new server' } })
    await fetch(`${url}/dailyDashBoard`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '[{"name":"orders","value":3}]' })
    wire.mend()
    await reads(teal, 'to the new server')
    await curve(teal, 'orders', 1)
    t.same(await teal.locator('#log li .text').allInnerTexts(), ['to the old server', 'to the new server'])
    t.equal(await teal.locator('.chart').count(), 1, 'numbers that the server has lost are gone')
    await ruby.ask({ type: 'message', data: { text: 'and on' } })
    await reads(teal, 'and on')
    t.equal(await teal.locator('#log li', { hasText: 'to the new server' }).count(), 1)
  })

  t.test('a page that loses its network says so, and keeps the focus on its button', async t => {
    const example = await startExample(t, 'example/server.ts')
    const [page] = await people(t, example.url, ['Teal Otter'], phone) as [Page]
    const before = await page.locator('#scroller').boundingBox()
    await page.context().setOffline(true)
    await example.stop('SIGKILL')
    await page.locator('#chat-status[data-state=waiting]', { hasText: /You are offline.*retry in \d+ s/ }).waitFor()
    t.same(await page.locator('#scroller').boundingBox(), before, 'the layout does not shift')
    t.same(await page.evaluate(smallControls), [], 'all targets have 44 pixels')
    t.ok(await isInView(page, '#chat-status button'))
    const button = page.locator('#chat-status button')
    await button.focus()
    await page.keyboard.press('Enter')
    await page.locator('#chat-status[data-state=waiting]').waitFor()
    t.ok(await hasFocus(button))

    await startExample(t, 'example/server.ts', { PORT: new URL(example.url).port })
    await page.context().setOffline(false)
    await page.locator('#chat-status[data-state=open]').waitFor()
    t.ok(await hasFocus(page.locator('#text')), 'Tab moves from there to the message')
  })

  t.test('issue 8: the page suggests a second tab only if its visitor is alone and the device has tabs', async t => {
    const empty = (page: Page) => page.evaluate('getComputedStyle(log, "::before").content')
    const [small] = await people(t, `${url}/?room=garden`, ['Slate Wren'], phone) as [Page]
    await small.locator('#members-title', { hasText: 'Only you are here' }).waitFor()
    t.equal(await empty(small), '"No messages yet. Others appear here as they open this page."')
    const [second] = await people(t, `${url}/?room=garden`, ['Teal Otter'], desktop) as [Page]
    await second.locator('#members-title', { hasText: '2 people here' }).waitFor()
    t.equal(await empty(second), '"No messages yet. Say hello."')
    await small.close()
    await reads(second, 'Slate Wren left')
    const [kitchen] = await people(t, `${url}/?room=kitchen`, ['Ruby Heron'], desktop) as [Page]
    await kitchen.locator('#members-title', { hasText: 'Only you are here' }).waitFor()
    t.equal(await empty(kitchen), '"No messages yet. Open this page in a second tab to have company."')
    t.equal(await kitchen.locator('#chat-title').textContent(), 'Kitchen')
  })

  t.test('issue 8: on a phone the message is in view, the figures are one tap away, and all targets have 44 pixels', async t => {
    const heard: string[] = []
    const [page, other] = await people(t, url, ['Slate Wren', 'Ruby Heron'], { ...phone, heard }) as [Page, Page]
    await page.locator('#members button').waitFor()
    for (const selector of ['.tagline', '.tabs', '#text']) t.ok(await isInView(page, selector), `${selector} is in view`)
    t.same(await page.evaluate(smallControls), [], 'in the chat')
    await page.locator('#members button').tap()
    t.same(await page.evaluate(smallControls), [], 'with a private message')

    await other.locator('.tabs a').last().tap()
    await other.locator('#random').tap()
    await other.locator('.chart').nth(3).waitFor()
    t.ok(await isInView(other, '.chart[data-name="visits"]'))
    t.ok(await isInView(other, '#post-value'))
    t.same(await other.evaluate(smallControls), [], 'on the figures')
    await page.getByRole('link', { name: 'Today’s numbers new' }).tap()
    await page.getByRole('link', { name: 'Today’s numbers', exact: true }).waitFor()
    t.ok(await isInView(page, '.chart[data-name="visits"]'), 'one tap shows the numbers')
    t.notOk(await page.locator('#text').isVisible())
    await page.locator('#how').waitFor({ state: 'hidden' })
    await page.getByRole('button', { name: 'How it works' }).tap()
    t.same(await page.evaluate(smallControls), [], 'in the explanation')
    await page.getByRole('button', { name: 'Close' }).tap()
    await page.goBack()
    t.ok(await page.locator('#text').isVisible(), '"back" shows the chat')
    t.same(heard, [], 'the browser console is empty')
  })

  t.test('issue 8: the page uses a visitor\'s words, and explains the technical names to developers', async t => {
    const [page] = await people(t, url, ['Teal Otter'], desktop) as [Page]
    t.same(await page.getByRole('heading', { level: 2 }).allTextContents(), ['Lobby', 'Today’s numbers'])
    t.notMatch(await page.locator('body').innerText(), /chat:|dailyNews|dashboard|figure|topic/i)
    await page.getByRole('button', { name: 'How it works' }).press('Enter')
    for (const word of ['chat:lobby', 'dailyNews', '/quote visits', `curl ${url}/dailyDashBoard`]) t.ok((await page.locator('#how').innerText()).includes(word), word)
    await page.keyboard.press('Escape')
    t.notOk(await page.locator('#how').isVisible())
  })

  t.test('text is readable and every control has a name, in light and dark', async t => {
    for (const colorScheme of ['light', 'dark'] as const) {
      const [page, other] = await people(t, url, ['Teal Otter', 'Ruby Heron'], { ...phone, colorScheme, reducedMotion: 'reduce' }) as [Page, Page]
      const check = async (what: string) => {
        t.same(await page.evaluate(faintTexts), [], `contrast: ${what}, ${colorScheme}`)
        t.same(await page.evaluate(namelessControls), [], `names: ${what}, ${colorScheme}`)
      }
      await check('the beginning')
      await say(other, 'Good morning!')
      await say(page, '/quote nothing')
      await page.locator('#chat-fault').waitFor()
      await page.locator('#members button', { hasText: 'Ruby Heron' }).last().tap()
      await check('the chat')
      await page.locator('.tabs a').last().tap()
      await page.locator('#random').tap()
      await page.locator('.chart').nth(3).waitFor()
      await check('the numbers')
      await page.getByRole('button', { name: 'How it works' }).tap()
      await check('the explanation')
      await Promise.all([page, other].map(page => page.context().close()))
    }
  })

  t.test('the layout does not shift or scroll sideways, and the log stays at its end through 200 messages', async t => {
    const heard: string[] = []
    for (const [width, height] of [[1280, 800], [320, 568]] as const) {
      const [page, other] = await people(t, url, ['W'.repeat(32), 'Ruby Heron'], { viewport: { width, height }, heard }) as [Page, Page]
      t.ok(Number(await page.evaluate(layoutShift)) < 0.02, `${width} px: the layout does not shift`)
      const atEnd = () => holds(page, '(({ scrollHeight, scrollTop, clientHeight }) => clientHeight > 0 && scrollHeight - scrollTop - clientHeight < 2)(scroller)')
      await other.evaluate(`{
        const socket = new WebSocket(location.origin.replace('http', 'ws') + '/chat:lobby?name=Olive')
        socket.onopen = () => { for (let n = 1; n <= 200; n++) socket.send(JSON.stringify({ type: 'message', data: { text: n % 20 === 0 ? 'W'.repeat(300) : 'message ' + n } })) }
      }`)
      await reads(other, 'message 199')
      await say(other, `${width} px, the last`)
      await reads(page, `${width} px, the last`)
      await atEnd()
      if (width < 500) {
        await page.locator('.tabs a').last().click()
        await say(other, 'meanwhile')
        await page.getByRole('link', { name: 'Chat new' }).click()
        await atEnd()
      }
      await page.locator('#members button').first().click()
      await say(page, '/no')
      await page.locator('#chat-fault').waitFor()
      t.ok(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), `${width} px: nothing is cut off at the side`)
      t.ok(await page.evaluate('document.querySelector("#composer").getBoundingClientRect().bottom <= document.querySelector("#chat").getBoundingClientRect().bottom'), `${width} px: the panel holds its contents`)
      await page.evaluate('scroller.scrollTop = 0')
      await page.waitForTimeout(100)
      await say(other, 'while you read')
      await reads(page, 'while you read')
      t.equal(await page.evaluate('scroller.scrollTop'), 0, 'new messages do not move a log that was scrolled back')
      await Promise.all([page, other].map(page => page.context().close()))
    }
    t.same(heard, [], 'the browser console is empty')
  })
}
