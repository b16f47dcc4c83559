/**
 * What tap measures for every test file: lib as the tests import it, and nothing else. The processes that tests start
 * inherit the measuring, and load dist, example and whole temporary projects.
 */
export default () => 'lib/**/*.ts'
