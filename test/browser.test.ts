import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { BrowserContextOptions, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { createRooms, listen as serve, until } from './helpers/app.ts'
import { curve, holds, launch, patience, reads, say, tabs } from './helpers/browser.ts'
import { emptyFolder } from './helpers/folder.ts'
import { startExample } from './helpers/process.ts'

async function screenshotFolder (t: Test): Promise<string> {
  const { SCREENSHOTS } = process.env
  if (SCREENSHOTS !== undefined) {
    await mkdir(SCREENSHOTS, { recursive: true })
    return SCREENSHOTS
  }
  return emptyFolder(t)
}

async function screenshot (t: Test, page: Page, folder: string, name: string): Promise<void> {
  const path = join(folder, name)
  await page.screenshot({ path, fullPage: true })
  t.ok((await stat(path)).size > 10_000, `${name} shows text`)
}

async function isWithinWidth (page: Page): Promise<boolean> {
  return page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
}

const browser = await launch(t)
if (browser !== undefined) {
  t.test('two tabs exchange public and private messages', async t => {
    const { url } = await startExample(t, 'example/server.ts')
    const heard: string[] = []
    const [teal, ruby] = await tabs(browser, url, ['Teal Otter', 'Ruby Heron'], { heard }) as [Page, Page]

    await reads(teal, 'Ruby Heron joined')
    t.equal(await teal.locator('#members li').count(), 2)
    t.equal(await ruby.locator('#members .self').textContent(), 'Ruby Heronyou')

    await say(teal, 'Good morning!')
    await reads(ruby, 'Teal Otter', 'Good morning!')
    await teal.locator('#log .own', { hasText: 'Good morning!' }).waitFor()
    const markup = '<img src=x onerror="document.title = \'fooled\'">'
    await say(ruby, markup)
    await reads(teal, 'Ruby Heron', markup)
    t.equal(await teal.title(), 'fastify-rooms', 'the page shows messages as text, not as markup')

    // With the keyboard: selects the other member, writes a private message, and returns to the public ones.
    await teal.locator('#members button').focus()
    await teal.keyboard.press('Enter')
    t.equal(await teal.locator('#target-name').textContent(), 'Ruby Heron')
    t.equal(await teal.locator('#members button').getAttribute('aria-pressed'), 'true')
    await say(teal, 'Between us')
    await reads(ruby, 'Teal Otter', 'privately, to you', 'Between us')
    await reads(teal, 'privately, to Ruby Heron', 'Between us')
    await teal.press('#text', 'Escape')
    await teal.locator('#target').waitFor({ state: 'hidden' })

    await teal.fill('#name', 'Amber Lynx')
    await teal.press('#name', 'Enter')
    await reads(ruby, 'Teal Otter is now Amber Lynx')
    await say(teal, 'It is still me')
    await reads(ruby, 'Amber Lynx', 'It is still me')

    await say(teal, '/quote nothing')
    await teal.locator('#chat-fault', { hasText: 'there are no numbers for "nothing" yet' }).waitFor()
    t.equal(await teal.inputValue('#text'), '/quote nothing', 'a refused command can be corrected')
    await say(teal, 'Never mind')
    await teal.locator('#chat-fault').waitFor({ state: 'hidden' })

    const [onlooker] = await tabs(browser, url, ['Slate Wren']) as [Page]
    await reads(ruby, 'Slate Wren joined')
    await onlooker.close()
    await reads(ruby, 'Slate Wren left')
    t.equal(await ruby.locator('#log li', { hasText: 'Between us' }).count(), 1, 'a private message is shown once')
    t.same(heard, [], 'the browser console has no errors')
  })

  t.test('a button posts figures, and the charts of both tabs change', async t => {
    const { url } = await startExample(t, 'example/server.ts')
    const heard: string[] = []
    const [one, two] = await tabs(browser, url, ['Teal Otter', 'Ruby Heron'], { heard }) as [Page, Page]
    await Promise.all([one, two].map(page => page.locator('#empty').waitFor()))

    await one.click('#random')
    await one.locator('#empty').waitFor({ state: 'hidden' })
    const first = await Promise.all([one, two].map(page => curve(page, 'visits', 1)))
    t.equal(first[0], first[1])
    await one.click('#random')
    const second = await Promise.all([one, two].map(page => curve(page, 'visits', 2)))
    t.equal(second[0], second[1], 'both tabs draw the same chart')
    t.not(second[0], first[0], 'the chart has changed')

    await two.fill('#post-name', 'visits')
    await two.fill('#post-value', '123456')
    await two.press('#post-value', 'Enter')
    for (const page of [one, two]) {
      await curve(page, 'visits', 3)
      t.equal(await page.locator('.chart[data-name="visits"] .value').textContent(), '123,456')
    }
    await say(one, '/quote visits')
    await reads(two, 'quotes', 'visits: 123456')

    // Figures that another program posts, as curl would. A visitor that joins later sees the same chart.
    const response = await fetch(`${url}/dailyDashBoard`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '[{"name":"visits","value":7},{"name":"<b>bold</b>","value":1}]' })
    t.equal(response.status, 200)
    const fourth = await curve(one, 'visits', 4)
    t.equal(await curve(two, 'visits', 4), fourth)
    t.equal(await one.locator('.chart h3').last().textContent(), '<b>bold</b>')
    const [late] = await tabs(browser, url, ['Slate Wren']) as [Page]
    t.equal(await curve(late, 'visits', 4), fourth)
    t.same(heard, [], 'the browser console has no errors')
  })

  t.test('refused figures show the reason', async t => {
    const { url } = await startExample(t, 'example/server.ts')
    const [page] = await tabs(browser, url, ['Teal Otter']) as [Page]
    await page.fill('#post-name', '   ')
    await page.fill('#post-value', '1')
    await page.press('#post-value', 'Enter')
    await page.locator('#dashboard-fault', { hasText: 'body/0/name' }).waitFor()
    await page.click('#random')
    await page.locator('#dashboard-fault').waitFor({ state: 'hidden' })
    // Figures arrive through the WebSocket, possibly after the answer to the POST.
    await page.locator('.chart').nth(3).waitFor()
    t.equal(await page.locator('.chart').count(), 4)
  })

  t.test('a page reconnects after a restart, and does not reconnect if it is refused', async t => {
    const before = await startExample(t, 'example/server.ts')
    const { url } = before
    const [page] = await tabs(browser, url, ['Teal Otter']) as [Page]
    await before.stop()
    await page.locator('#chat-status[data-state=waiting]', { hasText: 'Connection lost' }).waitFor()
    await page.locator('#dashboard-status[data-state=waiting]').waitFor()

    const port = new URL(url).port
    await startExample(t, 'example/server.ts', { PORT: port })
    await page.locator('#chat-status[data-state=open]').waitFor()
    await page.locator('#dashboard-status[data-state=open]').waitFor()
    await reads(page, 'Messages sent in the meantime may be missing')
    await say(page, 'Here again')
    await reads(page, 'Here again')

    const refused = await (await browser.newContext()).newPage()
    await refused.addInitScript('sessionStorage.setItem("name", "x".repeat(33))')
    await refused.goto(url)
    await refused.locator('#chat-status[data-state=stopped]', { hasText: 'a name has 1 to 32 characters' }).waitFor({ timeout: patience })
    await refused.fill('#name', 'Ruby Heron')
    await refused.press('#name', 'Enter')
    await refused.locator('#chat-status[data-state=open]').waitFor({ timeout: patience })
    await reads(page, 'Ruby Heron joined')
    t.pass('a name that the server accepts lets the visitor join')
  })

  t.test('compressed messages keep their content and order among plain and private ones', async t => {
    const app = await createRooms(t, { origin: 'any', websocket: { options: { perMessageDeflate: true } } })
    const url = await serve(app)
    const page = await browser.newPage()
    await page.evaluate(`{
      window.socket = new WebSocket('ws://${url}/rooms/news')
      window.frames_ = []
      socket.onmessage = ({ data }) => { frames_.push(JSON.parse(data)) }
      new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = () => reject(new Error('refused')) })
    }`)
    await until(async () => await app.rooms.count('news') === 1, patience)
    const [{ session }] = await app.rooms.members('news') as [{ session: string }]
    const texts = Array.from({ length: 60 }, (_, n) => `${n} ${'äbc '.repeat([0, 500, 20_000][n % 3]!)}`)
    for (const text of texts) {
      if (text.startsWith('7')) app.rooms.send(session, text)
      else app.rooms.broadcast('news', text)
    }
    await holds(page, `frames_.filter(({ data }) => data).length === ${texts.length}`)
    t.equal(await page.evaluate('socket.extensions'), 'permessage-deflate; server_no_context_takeover')
    t.ok(isDeepStrictEqual(await page.evaluate('frames_.map(frame => frame.data).filter(Boolean)'), texts))
    await page.close()
  })

  t.test('the page fits a desktop and a phone, in light and dark', async t => {
    const { url } = await startExample(t, 'example/server.ts')
    const folder = await screenshotFolder(t)
    const views: [string, string, BrowserContextOptions][] = [
      ['desktop.png', 'Teal Otter', { viewport: { width: 1280, height: 800 }, colorScheme: 'light' }],
      ['desktop-dark.png', 'Ruby Heron', { viewport: { width: 1280, height: 800 }, colorScheme: 'dark' }],
      ['phone.png', 'Slate Wren with 32 characters___', { viewport: { width: 390, height: 844 }, colorScheme: 'light', hasTouch: true, isMobile: true, deviceScaleFactor: 2 }],
      ['phone-dark.png', 'Olive_Crane_without_a_space_32__', { viewport: { width: 390, height: 844 }, colorScheme: 'dark', hasTouch: true, isMobile: true, deviceScaleFactor: 2 }]
    ]
    const pages: Page[] = []
    const heard: string[] = []
    for (const [, name, options] of views) pages.push(...await tabs(browser, url, [name], { ...options, heard }))
    const [light, dark, phone] = pages as [Page, Page, Page]

    for (let round = 1; round <= 12; round++) {
      await light.click('#random')
      await curve(light, 'visits', round)
    }
    await light.fill('#post-name', 'a_figure_with_a_name_of_forty_characters')
    await light.fill('#post-value', '-123456789.123')
    await light.press('#post-value', 'Enter')
    await say(light, 'Good morning! Are the numbers in?')
    await reads(dark, 'Good morning!')
    await say(dark, 'Yes, and they look better than yesterday. The orders have been counted twice, so they should be right this time.')
    await reads(phone, 'Yes, and they')
    await say(phone, `${'no_space_to_break_at_'.repeat(8)}!`)
    await reads(light, 'no_space')
    await say(dark, '/quote visits')
    await reads(light, 'visits: ')
    await light.locator('#members button', { hasText: 'Ruby Heron' }).click()
    await say(light, 'Between us: lovely.')
    await reads(dark, 'Between us')
    await dark.locator('#members button', { hasText: 'Teal Otter' }).click()
    await dark.fill('#text', 'I think so, too')
    await phone.locator('#members button', { hasText: 'Olive' }).click()
    for (const page of pages) await curve(page, 'visits', 12)
    await light.waitForTimeout(1_000) // Waits for the end of animations; no assertion depends on it.

    await phone.locator('.tabs a').last().click()
    for (const [index, page] of pages.entries()) {
      const name = views[index]![0]
      t.ok(await isWithinWidth(page), `${name} does not scroll sideways`)
      await screenshot(t, page, folder, name)
    }
    const background = (page: Page) => page.evaluate('getComputedStyle(document.body).backgroundColor')
    t.not(await background(light), await background(dark), 'the dark scheme is dark')
    t.same(heard, [], 'the browser console has no errors')
  })
}
