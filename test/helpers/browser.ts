import { accessSync, constants } from 'node:fs'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import type { Test } from 'tap'

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
const args = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

/** Milliseconds to wait for an event: many times its duration on a busy machine. */
export const patience = 30_000

function isExecutable (path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/**
 * Starts one browser for all tests of a file. Without Chromium it skips the file, or fails if `CI` is set.
 * @param port - of the DevTools protocol, for tabs without Playwright
 */
export async function launch (t: Test, port?: number): Promise<Browser | undefined> {
  if (!isExecutable(executablePath) && process.env.CI === undefined) {
    t.plan(0, `there is no Chromium at ${executablePath}; CHROMIUM says where`)
    return undefined
  }
  const browser = await chromium.launch({
    executablePath,
    args: port === undefined ? args : [...args, `--remote-debugging-port=${port}`],
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
    timeout: patience
  })
  t.teardown(() => browser.close())
  return browser
}

/** Collects the console's errors and warnings, uncaught exceptions, and requests that fail or go to another host. */
function listen (page: Page, { origin }: URL, heard: string[]): void {
  page.on('console', message => { if (['error', 'warning'].includes(message.type())) heard.push(message.text()) })
  page.on('pageerror', error => { heard.push(String(error)) })
  page.on('requestfailed', request => { heard.push(`failed: ${request.url()}`) })
  page.on('request', request => { if (new URL(request.url()).origin !== origin) heard.push(`elsewhere: ${request.url()}`) })
}

/** Opens a browser context with one tab for each name, and waits until all are connected. */
export async function tabs (browser: Browser, url: string, names: string[], { heard = [], ...options }: BrowserContextOptions & { heard?: string[] } = {}): Promise<Page[]> {
  const context = await browser.newContext({ locale: 'en-GB', ...options })
  context.setDefaultTimeout(patience)
  const pages: Page[] = []
  for (const name of names) {
    const page = await context.newPage()
    listen(page, new URL(url), heard)
    await page.addInitScript(`sessionStorage.setItem('name', ${JSON.stringify(name)})`)
    await page.goto(url)
    await page.locator('#chat-status[data-state=open]').waitFor({ state: 'attached' })
    await page.locator('#dashboard-status[data-state=open]').waitFor({ state: 'attached' })
    pages.push(page)
  }
  return pages
}

export async function say (page: Page, text: string): Promise<void> {
  await page.fill('#text', text)
  await page.press('#text', 'Enter')
}

/** Waits for an entry of the log with all of these texts. */
export async function reads (page: Page, ...texts: string[]): Promise<void> {
  await texts.reduce((entry, hasText) => entry.filter({ hasText }), page.locator('#log li')).first().waitFor()
}

/** Waits until an expression is true in the page. `page.waitForFunction` evaluates a string inside the page each time it repeats, which the page's Content Security Policy refuses. */
export async function holds (page: Page, expression: string): Promise<void> {
  for (const deadline = Date.now() + patience; await page.evaluate(expression) !== true;) {
    if (Date.now() > deadline) throw new Error(`this does not become true in the page: ${expression}`)
    await page.waitForTimeout(20)
  }
}

/** Returns the curve of one number, once it has this many points. */
export async function curve (page: Page, name: string, points: number): Promise<string> {
  const path = page.locator(`.chart[data-name="${name}"] .curve`)
  const drawn = new RegExp(`^M[^L]*(?:L[^L]*){${points - 1}}$`)
  for (const deadline = Date.now() + patience; ;) {
    const d = await path.getAttribute('d') ?? ''
    if (drawn.test(d)) return d
    if (Date.now() > deadline) throw new Error(`the curve of ${name} does not get ${points} points: ${d}`)
    await page.waitForTimeout(20)
  }
}
