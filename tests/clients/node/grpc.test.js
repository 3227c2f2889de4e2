// Tries our server with @grpc/grpc-js.
//
// tests/clients/languages.py starts the servers, says where they are in TIS_* (see its SERVERS),
// makes the certificates in TIS_CERTIFICATES, and says where our .proto files are in TIS_PROTO.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { describe, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');

const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const BIG_BYTES = 64 << 20;
const MINUTE_MS = 60_000;
const code = grpc.status;

function env(name) {
  assert.ok(process.env[name], `${name} is not set; run tests/clients/languages.py node`);
  return process.env[name];
}

const definition = protoLoader.loadSync('grpc_service.proto', {
  includeDirs: [env('TIS_PROTO')], keepCase: true, longs: Number, defaults: true, oneofs: true,
});
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;

// A client that is closed at the end of the test t.
function connect(t, server, options = {}, credentials = grpc.credentials.createInsecure()) {
  const client = new GRPCInferenceService(env(server), credentials, {
    'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1,
    'grpc.use_local_subchannel_pool': 1, ...options,
  });
  t.after(() => client.close());
  return client;
}

// One unary call; `onCall` gets the call object.
function call(client, method, message, { afterMs = MINUTE_MS, onCall = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    onCall(client[method](message, { deadline: Date.now() + afterMs },
      (error, answer) => (error ? reject(error) : resolve(answer))));
  });
}

function raw(...values) {
  return Buffer.from(Int32Array.from(values).buffer);
}

// Asks an identity model of one type.
function request(model, content, { id = '', datatype = 'INT32', size = content.length / 4 } = {}) {
  return {
    model_name: model, id, inputs: [{ name: 'INPUT0', datatype, shape: [size] }],
    raw_input_contents: [content],
  };
}

function bigRequest(bytes) {
  return request('bytes', Buffer.alloc(bytes, '0123456789abcdef'),
    { datatype: 'UINT8', size: bytes });
}

function checkAnswer(answer, message) {
  assert.equal(answer.id, message.id);
  assert.ok(answer.raw_output_contents[0].equals(message.raw_input_contents[0]));
}

async function infer(client, message, options) {
  checkAnswer(await call(client, 'ModelInfer', message, options), message);
}

function failsWith(promise, wanted, text = '') {
  return assert.rejects(promise, (error) => {
    assert.equal(error.code, wanted, error.message);
    assert.ok(error.message.includes(text), error.message);
    return true;
  });
}

// A stream whose responses come by await receive(); null is its end, an error rejects.
function openStream(client) {
  const stream = client.ModelStreamInfer({ deadline: Date.now() + MINUTE_MS });
  const answers = stream[Symbol.asyncIterator]();
  return {
    stream,
    send: (message) => stream.write(message),
    async receive() {
      const { value, done } = await answers.next();
      return done ? null : value;
    },
    async exchange(message) {
      stream.write(message);
      const answer = await this.receive();
      assert.equal(answer.error_message, '');
      checkAnswer(answer.infer_response, message);
    },
    async finish() {
      stream.end();
      assert.equal(await this.receive(), null);
    },
  };
}

describe('unary', () => {
  test('raw', async (t) => {
    const client = connect(t, 'TIS_PLAIN');
    assert.equal((await call(client, 'ServerLive', {})).live, true);
    await infer(client, request('identity', raw(1, -2, 3), { id: 'größe' }));
  });

  test('typed', async (t) => {
    const message = request('identity', raw(1, -2, 3));
    message.raw_input_contents = [];
    message.inputs[0].contents = { int_contents: [1, -2, 3] };
    const answer = await call(connect(t, 'TIS_PLAIN'), 'ModelInfer', message);
    assert.deepEqual(answer.raw_output_contents[0], raw(1, -2, 3));
  });

  test('many at once', async (t) => {
    const client = connect(t, 'TIS_PLAIN');
    await Promise.all(Array.from({ length: 500 },
      (_, i) => infer(client, request('identity', raw(i)))));
  });

  const wrongType = request('identity', raw(1), { datatype: 'FP32' });
  for (const [name, message, wanted, text] of [
    ['unknown model', request('größe', raw(1)), code.NOT_FOUND, 'größe'],
    ['wrong type', wrongType, code.INVALID_ARGUMENT, 'FP32'],
  ]) {
    test(name, (t) => failsWith(infer(connect(t, 'TIS_PLAIN'), message), wanted, text));
  }

  test('unknown method', (t) => {
    const client = connect(t, 'TIS_PLAIN');
    const same = (bytes) => bytes;
    return failsWith(new Promise((resolve, reject) => {
      client.makeUnaryRequest('/inference.GRPCInferenceService/Nothing', same, same,
        Buffer.alloc(0), (error, answer) => (error ? reject(error) : resolve(answer)));
    }), code.UNIMPLEMENTED);
  });

  test('on the HTTP port', (t) => infer(connect(t, 'TIS_HTTP'), request('identity', raw(1))));

  test('health', async (t) => {
    const client = connect(t, 'TIS_PLAIN');
    const same = (bytes) => bytes;
    const answer = await new Promise((resolve, reject) => {
      client.makeUnaryRequest('/grpc.health.v1.Health/Check', same, same, Buffer.alloc(0),
        (error, bytes) => (error ? reject(error) : resolve(bytes)));
    });
    assert.deepEqual(answer, Buffer.from([8, 1])); // status: SERVING
  });
});

describe('stream', () => {
  test('many in flight', async (t) => {
    const s = openStream(connect(t, 'TIS_PLAIN'));
    const requests = new Map(Array.from({ length: 200 }, (_, i) =>
      [String(i), request('identity', raw(i), { id: String(i) })]));
    const count = requests.size;
    for (const message of requests.values())
      s.send(message);
    for (let i = 0; i < count; i++) {
      const { error_message: error, infer_response: answer } = await s.receive();
      assert.equal(error, '');
      checkAnswer(answer, requests.get(answer.id));
      requests.delete(answer.id);
    }
    await s.finish();
  });

  test('goes on after an error', async (t) => {
    const s = openStream(connect(t, 'TIS_PLAIN'));
    s.send(request('nothing', raw(1)));
    assert.match((await s.receive()).error_message, /nothing/);
    await s.exchange(request('identity', raw(1)));
    await s.finish();
  });

  test('decoupled', async (t) => {
    const s = openStream(connect(t, 'TIS_PLAIN'));
    const values = [7, 8, 9];
    s.send({
      model_name: 'repeat', id: 'r',
      parameters: { triton_enable_empty_final_response: { bool_param: true } },
      inputs: [
        { name: 'IN', datatype: 'INT32', shape: [3] },
        { name: 'DELAY', datatype: 'UINT32', shape: [3] },
        { name: 'WAIT', datatype: 'UINT32', shape: [1] },
      ],
      raw_input_contents: [raw(...values), raw(0, 0, 0), raw(0)],
    });
    for (const value of [...values, null]) {
      const { error_message: error, infer_response: answer } = await s.receive();
      assert.equal(error, '');
      assert.equal(answer.id, 'r');
      assert.equal(Boolean(answer.parameters.triton_final_response?.bool_param), value === null);
      if (value !== null)
        assert.deepEqual(answer.raw_output_contents[0], raw(value));
    }
    await s.finish();
  });

  test('cancel', async (t) => {
    const client = connect(t, 'TIS_PLAIN');
    const s = openStream(client);
    await s.exchange(request('identity', raw(1)));
    s.send(request('slow', raw(1)));
    s.stream.cancel();
    await failsWith(s.receive(), code.CANCELLED);
    await infer(client, request('identity', raw(1)));
  });
});

describe('cancel and deadline', () => {
  for (const [name, options, wanted] of [
    ['cancel', { onCall: (one) => setTimeout(() => one.cancel(), 100) }, code.CANCELLED],
    ['deadline', { afterMs: 200 }, code.DEADLINE_EXCEEDED],
  ]) {
    test(name, async (t) => {
      const client = connect(t, 'TIS_PLAIN');
      const started = Date.now();
      await failsWith(infer(client, request('slow', raw(1)), options), wanted);
      assert.ok(Date.now() - started < 2000, 'late');
      await infer(client, request('identity', raw(1)));
    });
  }
});

describe('compression and size', () => {
  for (const name of ['identity', 'deflate', 'gzip']) {
    test(name, async (t) => {
      const client = connect(t, 'TIS_COMPRESSED',
        { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms[name] });
      const message = request('identity', Buffer.alloc(400_000));
      await infer(client, message);
      const s = openStream(client);
      await s.exchange(message);
      await s.exchange(message);
      await s.finish();
    });
  }

  test('64 MiB', async (t) => {
    const client = connect(t, 'TIS_PLAIN');
    await infer(client, bigRequest(BIG_BYTES));
    const s = openStream(client);
    await s.exchange(bigRequest(BIG_BYTES));
    await s.finish();
  });
});

describe('connections', () => {
  // The server allows such pings and sends some itself.
  test('pings', async (t) => {
    const s = openStream(connect(t, 'TIS_LENIENT', { 'grpc.keepalive_time_ms': 1000 }));
    for (let i = 0; i < 2; i++) {
      await s.exchange(request('identity', raw(i)));
      await sleep(3000); // the time in which pings must do no harm
    }
    await s.finish();
  });

  // The server allows a ping every 5 minutes: the second that comes too early ends the connection.
  test('too many pings', async (t) => {
    const s = openStream(connect(t, 'TIS_STRICT', { 'grpc.keepalive_time_ms': 100 }));
    await failsWith(s.receive(), code.RESOURCE_EXHAUSTED); // its name for ENHANCE_YOUR_CALM
  });

  // Connections end after half a second; no call fails by that.
  test('age', async (t) => {
    const client = connect(t, 'TIS_AGE');
    const channel = client.getChannel();
    let changes = 0;
    const watch = () => channel.watchConnectivityState(channel.getConnectivityState(true),
      Date.now() + MINUTE_MS, (error) => {
        changes++;
        if (!error && changes < 8)
          watch();
      });
    watch();
    while (changes < 8)
      await infer(client, request('identity', raw(1)));
  });

  const pem = (name) => fs.readFileSync(path.join(env('TIS_CERTIFICATES'), name));
  const pair = (name) => [pem(`${name}.key`), pem(`${name}.crt`)];
  for (const [name, server, files, works] of [
    ['TLS', 'TIS_TLS', () => [pem('root.crt')], true],
    ['TLS, unknown authority', 'TIS_TLS', () => [pem('other_root.crt')], false],
    ['mutual TLS', 'TIS_MUTUAL', () => [pem('root.crt'), ...pair('client')], true],
    ['mutual TLS, none', 'TIS_MUTUAL', () => [pem('root.crt')], false],
    ['mutual TLS, unknown', 'TIS_MUTUAL', () => [pem('root.crt'), ...pair('stranger')], false],
  ]) {
    test(name, async (t) => {
      const client = connect(t, server, {}, grpc.credentials.createSsl(...files()));
      if (works) {
        await infer(client, request('identity', raw(1)));
        await infer(client, bigRequest(BIG_BYTES / 4));
      } else {
        await failsWith(infer(client, request('identity', raw(1))), code.UNAVAILABLE);
      }
    });
  }
});
