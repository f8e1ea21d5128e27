package peers;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** One reading of a device. */
public final class Reading {
    private static final ObjectReader READER = new ObjectMapper().readerFor(Reading.class);

    @JsonProperty("device_id")
    public String device;

    public long timestamp;
    public double temperature;
    public double humidity;
    public double co2;
    public double pm25;

    /** JSON by data binding. It is never written: grouping by the key that a record has makes no topic. */
    static Serde<Reading> serde() {
        return Serdes.serdeFrom(
                (topic, reading) -> {
                    throw new UnsupportedOperationException();
                },
                (topic, data) -> {
                    try {
                        return data == null ? null : READER.readValue(data);
                    } catch (IOException error) {
                        throw new SerializationException(error);
                    }
                });
    }
}
