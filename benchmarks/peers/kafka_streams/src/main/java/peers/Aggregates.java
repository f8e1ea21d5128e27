package peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** Count, sum, minimum and maximum of four measures in one window. */
public final class Aggregates {
    private static final String[] NAMES = {"temperature", "humidity", "co2", "pm25"};
    private static final JsonFactory FACTORY = new JsonFactory();
    private static final int BYTES = Long.BYTES + 3 * NAMES.length * Double.BYTES;

    private long start;
    private long count;
    private final double[] sum = new double[NAMES.length];
    private final double[] min = new double[NAMES.length];
    private final double[] max = new double[NAMES.length];

    Aggregates add(Reading reading) {
        add(0, reading.temperature);
        add(1, reading.humidity);
        add(2, reading.co2);
        add(3, reading.pm25);
        count++;
        return this;
    }

    Aggregates starting(long time) {
        start = time;
        return this;
    }

    private void add(int measure, double value) {
        sum[measure] += value;
        min[measure] = count == 0 ? value : Math.min(min[measure], value);
        max[measure] = count == 0 ? value : Math.max(max[measure], value);
    }

    /** What lies in the store and its changelog: numbers one after the other. */
    static Serde<Aggregates> stored() {
        return Serdes.serdeFrom((topic, aggregates) -> numbers(aggregates), (topic, data) -> ofNumbers(data));
    }

    /** What is sent: JSON. It is not read again. */
    static Serde<Aggregates> sent() {
        return Serdes.serdeFrom((topic, aggregates) -> json(aggregates), (topic, data) -> {
            throw new UnsupportedOperationException();
        });
    }

    private static byte[] numbers(Aggregates aggregates) {
        if (aggregates == null) {
            return null;
        }
        ByteBuffer buffer = ByteBuffer.allocate(BYTES).putLong(aggregates.count);
        for (int measure = 0; measure < NAMES.length; measure++) {
            buffer.putDouble(aggregates.sum[measure])
                    .putDouble(aggregates.min[measure])
                    .putDouble(aggregates.max[measure]);
        }
        return buffer.array();
    }

    private static Aggregates ofNumbers(byte[] data) {
        if (data == null) {
            return null;
        }
        ByteBuffer buffer = ByteBuffer.wrap(data);
        Aggregates made = new Aggregates();
        made.count = buffer.getLong();
        for (int measure = 0; measure < NAMES.length; measure++) {
            made.sum[measure] = buffer.getDouble();
            made.min[measure] = buffer.getDouble();
            made.max[measure] = buffer.getDouble();
        }
        return made;
    }

    private static byte[] json(Aggregates aggregates) {
        ByteArrayOutputStream out = new ByteArrayOutputStream(512);
        try (JsonGenerator json = FACTORY.createGenerator(out)) {
            json.writeStartObject();
            json.writeNumberField("start", aggregates.start);
            for (int measure = 0; measure < NAMES.length; measure++) {
                json.writeArrayFieldStart(NAMES[measure]);
                json.writeNumber(aggregates.count);
                json.writeNumber(aggregates.sum[measure]);
                json.writeNumber(aggregates.min[measure]);
                json.writeNumber(aggregates.max[measure]);
                json.writeEndArray();
            }
            json.writeEndObject();
        } catch (IOException error) {
            throw new SerializationException(error);
        }
        return out.toByteArray();
    }
}
