import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { BrowserContextOptions, Locator, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { createRooms, join as enter, listen, until } from './helpers/app.ts'
import { curve, holds, launch, patience, reads, say, tabs } from './helpers/browser.ts'
import { emptyFolder } from './helpers/folder.ts'
import { startExample } from './helpers/process.ts'

const desktop: BrowserContextOptions = { viewport: { width: 1280, height: 800 } }
const phone: BrowserContextOptions = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }

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

async function screenshotFolder (t: Test): Promise<string> {
  const { SCREENSHOTS } = process.env
  if (SCREENSHOTS === undefined) return emptyFolder(t)
  await mkdir(SCREENSHOTS, { recursive: true })
  return SCREENSHOTS
}

async function post (url: string, name: string, value: number): Promise<void> {
  await fetch(`${url}/dailyDashBoard`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify([{ name, value }]) })
}

/** Asks the assistant, with the keyboard. */
async function ask (page: Page, question: string): Promise<void> {
  await page.fill('#question', question)
  await page.press('#question', 'Enter')
  await page.locator('#answer', { hasText: question }).waitFor()
}

/** The network comes back: no page waits for its next attempt. */
async function wake (...pages: Page[]): Promise<void> {
  for (const page of pages) {
    await page.context().setOffline(true)
    await page.context().setOffline(false)
  }
}

const browser = await launch(t)
if (browser !== undefined) {
  /** Opens the page in a browser context of its own for each visitor. The tabs close with the test. */
  const people = async (t: Test, url: string, names: string[], options: BrowserContextOptions & { heard?: string[] } = {}): Promise<Page[]> => {
    const pages = (await Promise.all(names.map(name => tabs(browser, url, [name], options)))).flat()
    t.teardown(() => Promise.all(pages.map(page => page.context().close())))
    return pages
  }
  // Tests that stop no server share one, because a start takes seconds.
  const { url, host } = await startExample(t, 'example/server.ts')

  t.test('numbers move the charts of all pages, whoever posts them, and fill those of a page that is opened later', async t => {
    const heard: string[] = []
    const [one, two] = await people(t, `${url}/?room=charts`, ['Teal Otter', 'Ruby Heron'], { ...desktop, heard }) as [Page, Page]
    await Promise.all([one, two].map(page => page.locator('#empty').waitFor()))
    const offer = () => one.locator('#text').getAttribute('placeholder')
    t.equal(await offer(), 'Message', 'without numbers /quote is not offered')
    await one.click('#random')
    await one.locator('#empty').waitFor({ state: 'hidden' })
    t.equal(await curve(one, 'visits', 1), await curve(two, 'visits', 1), 'both pages draw the same chart')
    t.equal(await offer(), 'Message, or /quote visits')
    await two.fill('#post-value', '123456')
    await two.press('#post-value', 'Enter')
    for (const page of [one, two]) {
      await curve(page, 'visits', 2)
      t.equal(await page.locator('.chart[data-name="visits"] .value').textContent(), '123,456')
    }
    await say(one, '/quote visits')
    await reads(two, 'quotes', 'visits: 123456')
    await post(url, '<b>bold</b>', 7)
    await curve(one, '<b>bold</b>', 1)
    t.equal(await one.locator('.chart h3').last().textContent(), '<b>bold</b>')
    await two.fill('#post-name', '   ')
    await two.press('#post-value', 'Enter')
    await two.locator('#dashboard-fault', { hasText: 'body/0/name' }).waitFor()
    await two.click('#random')
    await two.locator('#dashboard-fault').waitFor({ state: 'hidden' })

    const third = await curve(one, 'visits', 3)
    const [late] = await people(t, `${url}/?room=charts`, ['Slate Wren'], { ...desktop, heard }) as [Page]
    t.equal(await curve(late, 'visits', 3), third)
    await reads(late, 'quotes', 'visits: 123456')
    t.equal(await late.locator('.fresh').count(), 0, 'numbers of before are no news')
    t.same(heard.filter(line => !line.includes('status of 400')), [], 'the browser console has no errors')
  })

  t.test('people write to all, and privately; a private message never becomes public', async t => {
    const heard: string[] = []
    const connections: string[] = []
    const [teal, ruby] = await people(t, `${url}/?room=talk`, ['Teal Otter', 'Ruby Heron'], { ...desktop, heard }) as [Page, Page]
    await teal.locator('#members button', { hasText: 'Ruby Heron' }).waitFor()
    t.equal(await ruby.locator('#members .self').textContent(), 'Ruby Heronyou')
    await say(teal, 'Good morning!')
    await reads(ruby, 'Teal Otter', 'Good morning!')
    await teal.locator('#log .own', { hasText: 'Good morning!' }).waitFor()
    const markup = '<img src=x onerror="document.title = \'fooled\'">'
    await say(ruby, markup)
    await reads(teal, 'Ruby Heron', markup)
    t.equal(await teal.title(), 'fastify-rooms', 'the page shows messages as text, not as markup')

    // With the keyboard: selects the other person, writes a private message, and returns to the public ones.
    await teal.locator('#members button').focus()
    await teal.keyboard.press('Enter')
    t.equal(await teal.locator('#members button').getAttribute('aria-pressed'), 'true')
    t.equal(await teal.locator('#text').getAttribute('placeholder'), 'Private message')
    await teal.getByRole('textbox', { name: 'Private message to Ruby Heron' }).waitFor()
    await say(teal, 'Between us')
    await reads(ruby, 'Teal Otter', 'privately, to you', 'Between us')
    await reads(teal, 'privately, to Ruby Heron', 'Between us')
    await say(teal, '/quote visits')
    await teal.locator('#chat-fault', { hasText: 'Commands work only in messages to everyone.' }).waitFor()
    await teal.press('#text', 'Escape')
    await teal.locator('#target').waitFor({ state: 'hidden' })
    await say(teal, '/quote nothing')
    await teal.locator('#chat-fault', { hasText: 'There are no numbers for "nothing" yet' }).waitFor()
    t.equal(await teal.inputValue('#text'), '/quote nothing', 'a refused command can be corrected')

    await teal.fill('#name', 'Amber Lynx')
    await teal.press('#name', 'Enter')
    await reads(ruby, 'Teal Otter is now Amber Lynx')
    await say(teal, 'It is still me')
    await reads(ruby, 'Amber Lynx', 'It is still me')

    // A tab that is duplicated is the same person; a reload is no leave.
    ruby.on('websocket', socket => { connections.push(new URL(socket.url()).pathname) })
    await ruby.reload()
    await reads(ruby, 'Amber Lynx', 'It is still me')
    await ruby.locator('#members button', { hasText: 'Amber Lynx' }).waitFor()
    t.same(connections, ['/rooms'], 'one connection carries all topics')
    t.equal(await ruby.locator('#log li', { hasText: 'It is still me' }).count(), 1)
    const again = await ruby.context().newPage()
    await again.addInitScript(`sessionStorage.setItem('user', ${JSON.stringify(await ruby.evaluate('sessionStorage.getItem("user")'))}); sessionStorage.setItem('name', 'Ruby Heron')`)
    await again.goto(`${url}/?room=talk`)
    await again.locator('#members .self', { hasText: 'Ruby Heronyou, 2 tabs' }).waitFor()
    t.equal(await teal.locator('#members-title').textContent(), '2 people here. Choose one to write privately.')
    await teal.locator('#members button').click()
    await say(teal, 'To both tabs')
    for (const page of [ruby, again]) await reads(page, 'privately, to you', 'To both tabs')
    await teal.fill('#text', 'A last word')
    await ruby.context().close()
    await reads(teal, 'Ruby Heron left')
    t.ok(await teal.locator('#log li', { hasText: 'Ruby Heron joined' }).count() <= 1, 'a reload is no join')
    t.equal(await teal.locator('#log li', { hasText: 'Ruby Heron left' }).count(), 1)
    t.equal(await teal.locator('#target').innerText().then(text => text.replace(/\s+/g, ' ')), 'To Ruby Heron (has left) Write to all')
    await teal.press('#text', 'Enter')
    await teal.locator('#chat-fault', { hasText: 'Not sent, because your reader has left.' }).waitFor()
    await teal.getByRole('button', { name: 'Write to all' }).click()
    t.equal(await teal.inputValue('#text'), 'A last word')
    t.same(heard, [], 'the browser console has no errors')
  })

  t.test('a visitor whose name is refused is told so, and comes in with another', async t => {
    const page = await (await browser.newContext()).newPage()
    page.setDefaultTimeout(patience)
    t.teardown(() => page.context().close())
    await page.addInitScript('sessionStorage.setItem("name", "x".repeat(33))')
    await page.goto(`${url}/?room=names`)
    await page.locator('#chat-status[data-state=closed]', { hasText: 'Not connected: a name has 1 to 32 characters' }).waitFor()
    await page.fill('#name', 'Zoë Müller')
    await page.press('#name', 'Enter')
    await page.locator('#chat-status[data-state=open]').waitFor()
    await page.locator('#members .self', { hasText: 'Zoë Müller' }).waitFor()
    await say(page, 'Here I am')
    await reads(page, 'Zoë Müller', 'Here I am')
  })

  t.test('an answer of the assistant goes on through a reload, and can be stopped', async t => {
    const heard: string[] = []
    const [page] = await people(t, `${url}/?room=questions`, ['Teal Otter'], { ...desktop, heard }) as [Page]
    await ask(page, 'How are the numbers?')
    await page.locator('#assistant-status[data-state=reading]', { hasText: 'Writing…' }).waitFor()
    t.equal(await page.locator('#answer').getAttribute('aria-busy'), 'true')
    await page.reload()
    await page.locator('#assistant-status[data-state=reading]').waitFor()
    const before = (await page.locator('#answer').innerText()).length
    await holds(page, `document.querySelector('#answer').textContent.length > ${before + 20}`)
    t.match(await page.locator('#answer').innerText(), /^You have asked: “How are the numbers\?” Of the numbers, visits stand at /)
    await page.getByRole('button', { name: 'Stop' }).focus()
    await page.keyboard.press('Enter')
    await page.locator('#assistant-status[data-state=stopped]', { hasText: 'Stopped' }).waitFor()
    t.ok(await hasFocus(page.locator('#question')), 'the keyboard goes on where the next question is written')
    const stopped = await page.locator('#answer').innerText()
    await page.reload()
    await page.locator('#assistant-status[data-state=stopped]').waitFor()
    t.equal(await page.locator('#answer').innerText(), stopped, 'the whole of it is kept')
    t.same(heard.filter(line => !line.startsWith('failed: ')), [], 'the browser console has no errors; a reload ends requests')
  })

  t.test('a page survives its server: it says what is happening, keeps what was written, and its charts go on', async t => {
    let example = await startExample(t, 'example/server.ts')
    const [teal, ruby] = await people(t, example.url, ['Teal Otter', 'Ruby Heron'], desktop) as [Page, Page]
    for (const page of [teal, ruby]) await page.locator('#members-title', { hasText: '2 people here' }).waitFor()
    const joined = await teal.locator('#log li', { hasText: 'joined' }).count()
    await say(teal, 'to the old server')
    await reads(ruby, 'to the old server')
    await post(example.url, 'visits', 1)
    await curve(teal, 'visits', 1)
    await ask(teal, 'Will you survive this?')
    await example.stop()
    await teal.locator('#assistant-status[data-state=reading]', { hasText: 'Connection lost. Reads on when it is back.' }).waitFor()
    for (const room of ['chat', 'dashboard']) await teal.locator(`#${room}-status[data-state=reconnecting]`, { hasText: 'Connection lost, trying again…' }).waitFor()
    t.equal(await teal.locator('#members-title').textContent(), 'Here before the connection was lost')
    await say(teal, 'Are you there?')
    await teal.locator('#chat-fault', { hasText: 'Not connected. Send it again once the connection is back.' }).waitFor()
    t.equal(await teal.inputValue('#text'), 'Are you there?', 'the text is kept')
    await teal.click('#random')
    await teal.locator('#dashboard-fault', { hasText: 'The server cannot be reached. Nothing was added.' }).waitFor()
    await teal.context().setOffline(true)
    await teal.locator('#chat-status', { hasText: 'You are offline' }).waitFor()

    example = await startExample(t, 'example/server.ts', { PORT: new URL(example.url).port })
    const other = await enter(t, `${example.host}/chat:lobby?name=Olive`)
    await other.ask({ type: 'message', data: { text: 'to the new server' } })
    await post(example.url, 'visits', 2)
    await wake(teal, ruby)
    for (const page of [teal, ruby]) for (const room of ['chat', 'dashboard']) await page.locator(`#${room}-status[data-state=open]`, { hasText: 'Connected' }).waitFor()
    await teal.locator('#assistant-status[data-state=lost]', { hasText: 'Broken off, because the server was stopped' }).waitFor()
    await reads(teal, 'to the new server')
    await curve(teal, 'visits', 2)
    await reads(teal, 'Back again. Messages sent in the meantime may be missing.')
    for (const fault of ['#chat-fault', '#dashboard-fault']) t.notOk(await teal.locator(fault).isVisible(), `${fault} is cleared`)
    await teal.press('#text', 'Enter')
    await reads(ruby, 'Teal Otter', 'Are you there?')
    t.same(await teal.locator('#log li .text').allInnerTexts(), ['to the old server', 'to the new server', 'Are you there?'])
    t.equal(await teal.locator('#log li', { hasText: /Otter joined|Heron joined/ }).count(), joined, 'people of before the restart are not announced')

    await example.stop('SIGKILL')
    await teal.locator('#chat-status[data-state=reconnecting]').waitFor()
    await startExample(t, 'example/server.ts', { PORT: new URL(example.url).port })
    await wake(teal)
    await reads(teal, 'Back again (2 times). Messages sent in the meantime may be missing.')
    t.equal(await teal.locator('#log li', { hasText: 'Back again' }).count(), 1)
    await teal.reload()
    await teal.locator('#chat-status[data-state=open]').waitFor()
    t.equal(await teal.locator('#answer').innerText(), '', 'an answer that no server has any more is gone')
  })

  t.test('the page suggests a second tab only if its visitor is alone and the device has tabs', async t => {
    const empty = (page: Page) => page.evaluate('getComputedStyle(log, "::before").content')
    const [small] = await people(t, `${url}/?room=garden`, ['Slate Wren'], phone) as [Page]
    await small.locator('#members-title', { hasText: 'Only you are here' }).waitFor()
    t.equal(await empty(small), '"No messages yet. Others appear here as they open this page."')
    const [kitchen] = await people(t, `${url}/?room=kitchen`, ['Ruby Heron'], desktop) as [Page]
    await kitchen.locator('#members-title', { hasText: 'Only you are here' }).waitFor()
    t.equal(await empty(kitchen), '"No messages yet. Open this page in a second tab to have company."')
    t.equal(await kitchen.locator('#chat-title').textContent(), 'Kitchen')
    await enter(t, `${host}/chat:kitchen?name=Teal`)
    await kitchen.locator('#members-title', { hasText: '2 people here' }).waitFor()
    await reads(kitchen, 'Teal joined')

    t.same(await kitchen.getByRole('heading', { level: 2 }).allTextContents(), ['Kitchen', 'Today’s numbers', 'Ask the assistant'])
    t.notMatch(await kitchen.locator('body').innerText(), /chat:|dailyNews|dashboard|figure|topic/i, 'the words are those of a visitor')
    await kitchen.getByRole('button', { name: 'How it works' }).press('Enter')
    for (const word of ['chat:kitchen', 'dailyNews', '/quote visits', `curl ${url}/dailyDashBoard`]) t.ok((await kitchen.locator('#how').innerText()).includes(word), word)
    await kitchen.keyboard.press('Escape')
    t.notOk(await kitchen.locator('#how').isVisible())
  })

  t.test('on a phone all is one tap away, large enough and readable, in light and dark', async t => {
    const heard: string[] = []
    const [page, other] = await people(t, `${url}/?room=phones`, ['Slate Wren', 'Ruby Heron'], { ...phone, reducedMotion: 'reduce', heard }) as [Page, Page]
    const check = async (words: string) => {
      t.same(await page.evaluate(smallControls), [], `${words}: all targets have 44 pixels`)
      t.same(await page.evaluate(namelessControls), [], `${words}: all controls have names`)
      t.ok(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), `${words}: nothing is cut off at the side`)
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme })
        t.same(await page.evaluate(faintTexts), [], `${words}: contrast, ${colorScheme}`)
      }
    }
    await page.locator('#members button').waitFor()
    for (const selector of ['.tagline', '.tabs', '#text']) t.ok(await isInView(page, selector), `${selector} is in view`)
    await check('the beginning')
    await say(other, 'Good morning!')
    await reads(page, 'Good morning!')
    await say(page, '/quote nothing')
    await page.locator('#chat-fault').waitFor()
    await page.locator('#members button', { hasText: 'Ruby Heron' }).tap()
    await check('the chat')

    await other.getByRole('link', { name: 'Numbers' }).tap()
    await other.locator('#random').tap()
    await page.getByRole('link', { name: 'Numbers new' }).tap()
    await page.getByRole('link', { name: 'Numbers', exact: true }).waitFor()
    await page.locator('.chart[data-name="visits"]').waitFor()
    t.ok(await isInView(page, '.chart[data-name="visits"]'))
    t.ok(await isInView(page, '#post-value'))
    t.notOk(await page.locator('#text').isVisible())
    await check('the numbers')
    await page.getByRole('link', { name: 'Assistant' }).tap()
    await ask(page, 'And now?')
    t.ok(await isInView(page, '#stop'))
    t.equal(await page.evaluate('getComputedStyle(answer, "::after").animationName'), 'none', 'nothing moves for those who do not want it')
    await check('the assistant')
    await page.getByRole('button', { name: 'How it works' }).tap()
    await check('the explanation')
    await page.getByRole('button', { name: 'Close' }).tap()
    await page.goBack()
    await page.goBack()
    t.ok(await page.locator('#text').isVisible(), '"back" shows the chat')
    t.same(heard, [], 'the browser console is empty')
  })

  t.test('the layout does not shift or scroll sideways, and the log stays at its end through 200 messages', async t => {
    const heard: string[] = []
    const [page, other] = await people(t, `${url}/?room=layout`, ['W'.repeat(32), 'Ruby Heron'], { viewport: { width: 320, height: 568 }, heard }) as [Page, Page]
    t.ok(Number(await page.evaluate(layoutShift)) < 0.02, 'the layout does not shift')
    const atEnd = () => holds(page, '(({ scrollHeight, scrollTop, clientHeight }) => clientHeight > 0 && scrollHeight - scrollTop - clientHeight < 2)(scroller)')
    const olive = await enter(t, `${host}/chat:layout?name=Olive`)
    for (let n = 1; n <= 200; n++) olive.send({ type: 'message', data: { text: n % 20 === 0 ? 'W'.repeat(300) : `message ${n}` } })
    await reads(page, 'message 199')
    await say(other, 'the last')
    await reads(page, 'the last')
    await atEnd()
    await page.getByRole('link', { name: 'Numbers' }).click()
    await say(other, 'meanwhile')
    await page.getByRole('link', { name: 'Chat new' }).click()
    await atEnd()
    await page.locator('#members button').first().click()
    await say(page, '/no')
    await page.locator('#chat-fault').waitFor()
    t.ok(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'nothing is cut off at the side')
    t.ok(await page.evaluate('document.querySelector("#composer").getBoundingClientRect().bottom <= document.querySelector("#chat").getBoundingClientRect().bottom'), 'the panel holds its contents')
    await page.evaluate('scroller.scrollTop = 0')
    await page.waitForTimeout(100)
    await say(other, 'while you read')
    await reads(page, 'while you read')
    t.equal(await page.evaluate('scroller.scrollTop'), 0, 'new messages do not move a log that was scrolled back')
    t.same(heard, [], 'the browser console is empty')
  })

  t.test('the page fits a desktop and a phone, in light and dark', async t => {
    const folder = await screenshotFolder(t)
    const heard: string[] = []
    const [page, other] = await people(t, `${url}/?room=pictures`, ['Teal Otter', 'Olive_Crane_without_a_space_32__'], { ...desktop, reducedMotion: 'reduce', heard }) as [Page, Page]
    for (const value of [3, 1, 4]) await post(url, 'a_figure_with_a_name_of_forty_characters', -value * 1e8 - 0.123)
    await say(page, 'Good morning! Are the numbers in?')
    await reads(other, 'Good morning!')
    await say(other, `Yes, and they look better than yesterday. ${'no_space_to_break_at_'.repeat(8)}!`)
    await reads(page, 'no_space')
    await page.locator('#members button', { hasText: 'Olive' }).click()
    await say(page, 'Between us: lovely.')
    await reads(other, 'Between us')
    await ask(page, 'How are the numbers?')
    await curve(page, 'a_figure_with_a_name_of_forty_characters', 3)
    const backgrounds = new Set()
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      backgrounds.add(await page.evaluate('getComputedStyle(document.body).backgroundColor'))
      for (const [name, width, height, views] of [['desktop', 1280, 800, ['chat']], ['phone', 360, 740, ['chat', 'numbers', 'assistant']]] as const) {
        await page.setViewportSize({ width, height })
        for (const view of views) {
          await page.evaluate(`location.hash = '${view}'`)
          t.ok(await page.evaluate('document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight'), `${name}, ${view}: it fits`)
          const path = join(folder, `${name}-${view}-${colorScheme}.png`)
          await page.screenshot({ path })
          t.ok((await stat(path)).size > 10_000, `${path} shows text`)
        }
      }
    }
    t.equal(backgrounds.size, 2, 'the dark scheme is dark')
    t.same(heard, [], 'the browser console has no errors')
  })

  t.test('compressed messages keep their content and order among plain and private ones', async t => {
    const app = await createRooms(t, { origin: 'any', websocket: { options: { perMessageDeflate: true } } })
    const url = await listen(app)
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
}
