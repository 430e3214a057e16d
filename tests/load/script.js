// k6: shoppers' traffic on the detector.
//
//   k6 run -e BASE_URL=http://127.0.0.1:8080 -e SMALL=small.jpg -e LARGE=large.jpg tests/load/script.js
//
// API_KEY is sent where it is set. A 429 is obeyed: the user waits as Retry-After says, and it is no failure.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter, Rate } from 'k6/metrics';

const base = __ENV.BASE_URL || 'http://127.0.0.1:8080';
const small = open(__ENV.SMALL, 'b');
const large = open(__ENV.LARGE, 'b');
const headers = __ENV.API_KEY ? { 'X-API-Key': __ENV.API_KEY } : {};

// k6 sends one file a field; a batch repeats the field
function multipart(field, pictures) {
  const bytes = (text) => new Uint8Array(Array.from(text, (c) => c.charCodeAt(0)));
  const pieces = pictures.flatMap((picture) => [
    bytes(`--load\r\nContent-Disposition: form-data; name="${field}"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n`),
    new Uint8Array(picture),
    bytes('\r\n'),
  ]);
  pieces.push(bytes('--load--\r\n'));
  const body = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    body.set(piece, at);
    at += piece.length;
  }
  return body.buffer;
}

const one = multipart('file', [small]);
const oneLarge = multipart('file', [large]);
const four = multipart('files', [small, small, small, small]);
headers['Content-Type'] = 'multipart/form-data; boundary=load';

const broken = new Rate('broken');
const limited = new Counter('limited');
const answered = new Counter('answered');
const told = {};

export const options = {
  scenarios: {
    shoppers: {
      executor: 'constant-vus',
      vus: Number(__ENV.USERS || 8),
      duration: __ENV.DURATION || '10s',
      gracefulStop: '2s',
    },
  },
  thresholds: {
    broken: [`rate<=${__ENV.MAX_FAIL_RATIO || 0}`],
    checks: ['rate==1'],
    'http_req_duration{route:predict}': [`p(95)<${__ENV.MAX_P95_MS || 1000}`],
    // a run that was only ever limited has shown nothing
    answered: ['count>0'],
  },
};

function send(route, path, body) {
  const answer = http.post(`${base}${path}`, body, { headers, tags: { route } });
  answered.add(answer.status === 200 ? 1 : 0);
  if (answer.status === 429) {
    limited.add(1);
    check(answer, { 'a 429 says when to come back': (r) => Number(r.headers['Retry-After']) >= 1 });
    sleep(Number(answer.headers['Retry-After']) || 1);
    return;
  }
  broken.add(answer.status !== 200);
  if (answer.status === 200) {
    check(answer, { 'the answer has a verdict or results': (r) => r.body.includes('prediction') });
  } else if (!told[answer.status]) {
    // once a user and status: the summary counts them but does not say what they were
    told[answer.status] = true;
    console.error(`${path}: ${answer.status} ${answer.body || answer.error}`);
  }
}

export default function () {
  const dice = Math.random();
  if (dice < 0.6) send('predict', '/predict', one);
  else if (dice < 0.8) send('predict', '/predict', oneLarge);
  else if (dice < 0.9) send('batch', '/v1/predict/batch', four);
  else send('explain', '/predict/explain', one);
  sleep(0.01 + Math.random() * 0.09);
}
